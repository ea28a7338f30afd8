"""The machinery of ``faye_wsgi.testing``: nothing else imports it, so that production has none."""
