"""Where metrics go: Prometheus, or gunicorn's statsd. Each file is a ``tally.Reporter``.

They are called by ``tally.report`` alone. Nothing here counts, and nothing here waits.
"""
