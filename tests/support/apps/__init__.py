"""The applications that the tests serve: the same routes in plain WSGI, Flask and Django."""
