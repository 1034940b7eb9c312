"""How the bytes of one named tensor are reached, one file per kind of file."""
