"""The machinery of ``faye_wsgi.testing`` and ``faye_wsgi.pytest_plugin``.

Nothing else imports it, so that production has none.
"""
