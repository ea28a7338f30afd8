# The types of dispatcher.py, for Cython: see docs/architecture.md.

import cython

from faye_wsgi.driver.events cimport MessageEvent
from faye_wsgi.transport.inbox cimport Backlog


cdef class Dispatcher:
    cdef public object _connection, _hub, _idle, _jobs, _listener, _switch, _telling, sink
    cdef public Backlog _backlog
    cdef public bint _has_failed, _is_forgotten, _is_paused, _is_running, gets_messages

    cpdef put(self, message)
    cpdef deliver(self)
    cpdef _append(self, job, Py_ssize_t size)
    cpdef _run(self, job)
