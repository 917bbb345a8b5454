"""The starter image model: trained here, from Microsoft's Fluent emoji, to work without a hub.

``python -m starter_image`` trains it from nothing; ``starter_image/model`` is what that produced.
Only this package trains it: the plant just loads the folder, as it loads any diffusers folder.
"""
