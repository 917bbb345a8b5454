"""One module per resource; each has a table of its routes, called ``routes``."""
