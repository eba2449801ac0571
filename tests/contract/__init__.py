"""What users see: the command line, `va.*`, stores and files on disk, and nothing else. These tests
judge a rebuild.

No module here imports anything below `vaearr` but `vaearr` itself. What is wrong here is wrong for
users.
"""
