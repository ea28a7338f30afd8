"""HTTP's vocabulary, no I/O: headers, requests, responses, URLs, origins, the proxy step.

Imports the standard library, h11 and ``faye_wsgi.errors`` only.
"""
