"""Productions: a template and a table become checked copy. Pure: no database, no store, no torch.

``template`` reads the file, ``rendering`` makes messages of it, ``plan`` says what has to be
generated in which order, ``gates`` judges what came back, ``tables`` reads the data.
"""
