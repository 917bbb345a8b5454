"""The version of what is running: images hold the folders, not an installed distribution."""

VERSION = "0.1.0"
