"""The settings of the project, without a database. A site of yours has its own SECRET_KEY."""

DEBUG = True
SECRET_KEY = "for this example alone"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "views"
WSGI_APPLICATION = "wsgi.application"
CHANNELS = {"url": "memory://", "history": 100}  # for several workers: redis://localhost:6379/0
