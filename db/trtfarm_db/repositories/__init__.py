"""Queries. A repository works in the transaction it is given and never commits."""
