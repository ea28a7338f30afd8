"""What ``python -m faye_wsgi`` can do besides talking to one server (``__main__.py``).

Only ``__main__.py`` imports it. A file for each group of commands.
"""
