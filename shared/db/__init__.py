"""The database: tables, connections, and one module of query functions per table.

Query functions take a connection and never commit; whoever opened the transaction owns it.
"""
