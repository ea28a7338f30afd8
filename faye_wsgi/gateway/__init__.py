"""The ready-made endpoint of Channels: what a page may ask for, and what it is answered.

A file here knows requests, and the public side of Channels; it knows no broker and no framework.
``protocol.py`` is without I/O.
"""
