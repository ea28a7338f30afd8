# The types of inbox.py, for Cython: see docs/architecture.md.


cdef class Inbox:
    cdef public object _hub, _idle, _jobs, _listener, _messages, _next_waiters, _owner, _settings
    cdef public object _sink, _switch, _waiter
    cdef public Py_ssize_t _bytes
    cdef public object expected
    cdef public bint _dispatching, _ended, _full, _is_forgotten, _is_listened_to, _paused, _serving
    cdef public bint is_awaited

    cpdef bint hand_out(self, messages) except -1
