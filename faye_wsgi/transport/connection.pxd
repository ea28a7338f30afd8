# The types of connection.py, for Cython: see docs/architecture.md.

from faye_wsgi.driver.base cimport Driver
from faye_wsgi.transport.closing cimport Closing
from faye_wsgi.transport.crossing cimport Crossing
from faye_wsgi.transport.dispatcher cimport Dispatcher
from faye_wsgi.transport.inbox cimport Backlog, Inbox
from faye_wsgi.transport.outbox cimport Outbox
from faye_wsgi.transport.stream cimport Stream


cdef class Connection:
    cdef public object _thread, cancel, changed, hub, keepalive, meter, settings
    cdef public Backlog backlog
    cdef public Closing closing
    cdef public Crossing crossing
    cdef public Dispatcher dispatcher
    cdef public Driver driver
    cdef public Inbox inbox
    cdef public Outbox outbox
    cdef public Stream stream
    cdef public bint _inflates, heard
    cdef public Py_ssize_t bytes_in, received

    cpdef _deal_with(self, list items)
    cpdef _check_backlog(self)
