# The types of connection.py, for Cython: see docs/architecture.md.

from faye_wsgi.transport.inbox cimport Inbox
from faye_wsgi.transport.outbox cimport Outbox
from faye_wsgi.transport.stream cimport Stream


cdef class Connection:
    cdef object __weakref__
    cdef public object _cancel, _close_event, _closing, _error_event, _hub, _keepalive, _settings
    cdef public object _sink, _step, _telling, _thread, driver
    cdef public Inbox _inbox
    cdef public Outbox outbox
    cdef public Stream stream
    cdef public bint _ended_in, _heard, _hurries, is_over


cdef bint _are_messages(list received) except -1
