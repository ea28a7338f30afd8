/* The C twins of the classes in faye_wsgi.transport.hotpath: line by line the same, but that
 * no frame of the interpreter lies between two of them. What is not nearly always so is left
 * to the hooks, which are Python in both. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#ifdef _WIN32
#define HAS_DESCRIPTORS 0
#else
#define HAS_DESCRIPTORS 1
#include <errno.h>
#include <sys/socket.h>
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
#endif
#endif

#define GATHER 65536 /* bytes: what is gathered goes out when this much is together */
#define LARGE 32768  /* bytes: what is not worth copying */
#define TURN 64      /* what a thread may write before the others have their turn: */
#define TURN_BYTES 2048 /* a system call counts as one, and so do this many bytes */
#define TURN_PIECES 16  /* or gathered pieces */
#define READ_SIZE 65536
#define SMALL 4096   /* bytes: what is read is worth a copy, and what will be read, probably */
#define OPEN 1       /* ReadyState.OPEN */

#define NAMES(X) \
    X(__get__) X(_check_relief) X(_failed) X(_forget) X(_hand_out) X(_hold_back) X(_keep) X(_not_built) X(_not_read) \
    X(_not_sent) X(_read_end) X(_receive_events) X(_send) X(_send_shared) X(_stop_reading) \
    X(_take) X(appendleft) X(data) X(failed) X(hand_out) X(join) X(pop) X(popleft) X(receive_messages) \
    X(received) X(recv) X(send) X(state) X(switch) X(target) X(write)

#define DECLARE(name) static PyObject *str_##name;
NAMES(DECLARE)

static PyObject *get_current;     /* greenlet.getcurrent */
static PyObject *greenlet_switch; /* greenlet.greenlet.switch */
static PyObject *message_event;   /* faye_wsgi.driver.events.MessageEvent */
static PyObject *no_arguments;
static PyObject *no_bytes;
static PyObject *zero;

/* ---------------------------------------------------------------- what all of them need */

/* A new reference to an attribute's value, which code that is called may replace meanwhile. */
static PyObject *
held(PyObject *value)
{
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "an attribute of this object is not set");
    else
        Py_INCREF(value);
    return value;
}

static int
is_set(PyObject *value)
{
    return value != NULL && value != Py_None;
}

/* The number of messages, or waiters, in an attribute; none where there is no queue yet. */
static Py_ssize_t
count_of(PyObject *queue)
{
    return queue == NULL ? 0 : PyObject_Size(queue);
}

static Py_ssize_t
size_of(PyObject *data)
{
    if (PyBytes_CheckExact(data))
        return PyBytes_GET_SIZE(data);
    return PyObject_Size(data);
}

static PyObject *
take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
#endif
}

/* Steals the reference. */
static void
restore_exception(PyObject *error)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    Py_INCREF(Py_TYPE(error));
    PyErr_Restore((PyObject *)Py_TYPE(error), error, PyException_GetTraceback(error));
#endif
}

/* Calls a hook with the exception that is set, and raises it again unless the hook raised. */
static void
tell_of_exception(PyObject *self, PyObject *hook, PyObject *arg)
{
    PyObject *error = take_exception();
    PyObject *result = PyObject_CallMethodOneArg(self, hook, arg != NULL ? arg : error);

    if (result == NULL)
        Py_DECREF(error);
    else {
        Py_DECREF(result);
        restore_exception(error);
    }
}

/* ---------------------------------------------------------------- Batch */

typedef struct {
    PyObject_HEAD
    char is_open;
    Py_ssize_t turn;   /* what was written since the hub last ran */
    PyObject *written; /* a list, always */
} Batch;

static PyObject *
batch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Batch *self = (Batch *)type->tp_alloc(type, 0);

    (void)args;
    (void)kwargs;
    if (self != NULL && (self->written = PyList_New(0)) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
batch_traverse(Batch *self, visitproc visit, void *arg)
{
    Py_VISIT(self->written);
    return 0;
}

static int
batch_clear(Batch *self)
{
    return self->written == NULL ? 0
        : PyList_SetSlice(self->written, 0, PyList_GET_SIZE(self->written), NULL);
}

static void
batch_dealloc(Batch *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->written);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef batch_members[] = {
    {"is_open", T_BOOL, offsetof(Batch, is_open), 0, NULL},
    {"turn", T_PYSSIZET, offsetof(Batch, turn), 0, NULL},
    {"written", T_OBJECT_EX, offsetof(Batch, written), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *batch_flush(Batch *self, PyObject *unused);

PyDoc_STRVAR(batch_flush_doc,
"flush()\n--\n\nClose the batch; every stream flushes, and one that cannot fails alone.");

static PyMethodDef batch_methods[] = {
    {"flush", (PyCFunction)batch_flush, METH_NOARGS, batch_flush_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject BatchType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "faye_wsgi.transport._hotpath.Batch",
    .tp_basicsize = sizeof(Batch),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = batch_new,
    .tp_traverse = (traverseproc)batch_traverse,
    .tp_clear = (inquiry)batch_clear,
    .tp_dealloc = (destructor)batch_dealloc,
    .tp_methods = batch_methods,
    .tp_members = batch_members,
};

/* ---------------------------------------------------------------- StreamPath */

typedef struct {
    PyObject_HEAD
    PyObject *recv, *send, *receiver;
    Batch *batch;                 /* NULL before __init__ */
    PyObject *gathered, *waiting; /* lists, always */
    Py_ssize_t gathered_size, waiting_size, read_size;
    int recv_fd, send_fd;         /* what recv and send stand for; -1 where they must be called */
    char is_large;                /* the last read was */
} StreamPath;

static PyTypeObject StreamPathType;

static PyObject *
stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    StreamPath *self = (StreamPath *)type->tp_alloc(type, 0);

    (void)args;
    (void)kwargs;
    if (self != NULL && ((self->gathered = PyList_New(0)) == NULL ||
                         (self->waiting = PyList_New(0)) == NULL))
        Py_CLEAR(self);
    if (self != NULL)
        self->recv_fd = self->send_fd = -1;
    return (PyObject *)self;
}

static int
stream_init(StreamPath *self, PyObject *args, PyObject *kwargs)
{
    PyObject *sock, *receiver, *batch, *recv, *send;
    Py_ssize_t read_size;
    int fd;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "StreamPath() takes no keyword arguments");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOO!ni", &sock, &receiver, &BatchType, &batch, &read_size,
                          &fd))
        return -1;
    if ((recv = PyObject_GetAttr(sock, str_recv)) == NULL)
        return -1;
    if ((send = PyObject_GetAttr(sock, str_send)) == NULL) {
        Py_DECREF(recv);
        return -1;
    }
    Py_XSETREF(self->recv, recv);
    Py_XSETREF(self->send, send);
    Py_INCREF(receiver);
    Py_XSETREF(self->receiver, receiver);
    Py_INCREF(batch);
    Py_XSETREF(self->batch, (Batch *)batch);
    self->read_size = read_size;
    self->recv_fd = self->send_fd = fd;
    return 0;
}

static PyObject *
stream_get_recv(StreamPath *self, void *unused)
{
    (void)unused;
    return held(self->recv);
}

static PyObject *
stream_get_send(StreamPath *self, void *unused)
{
    (void)unused;
    return held(self->send);
}

/* Who sets another function has it called: the descriptor may be somebody else's by then. */
static int
stream_set_recv(StreamPath *self, PyObject *value, void *unused)
{
    (void)unused;
    self->recv_fd = -1;
    Py_XINCREF(value);
    Py_XSETREF(self->recv, value);
    return 0;
}

static int
stream_set_send(StreamPath *self, PyObject *value, void *unused)
{
    (void)unused;
    self->send_fd = -1;
    Py_XINCREF(value);
    Py_XSETREF(self->send, value);
    return 0;
}

static int
stream_traverse(StreamPath *self, visitproc visit, void *arg)
{
    Py_VISIT(self->recv);
    Py_VISIT(self->send);
    Py_VISIT(self->receiver);
    Py_VISIT(self->batch);
    Py_VISIT(self->gathered);
    Py_VISIT(self->waiting);
    return 0;
}

static int
stream_clear(StreamPath *self)
{
    Py_CLEAR(self->recv);
    Py_CLEAR(self->send);
    Py_CLEAR(self->receiver);
    Py_CLEAR(self->batch);
    return 0;
}

static void
stream_dealloc(StreamPath *self)
{
    PyObject_GC_UnTrack(self);
    stream_clear(self);
    Py_CLEAR(self->gathered);
    Py_CLEAR(self->waiting);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int
stream_keep(StreamPath *self, PyObject *data, Py_ssize_t start)
{
    PyObject *result, *number = PyLong_FromSsize_t(start);

    if (number == NULL)
        return -1;
    result = PyObject_CallMethodObjArgs((PyObject *)self, str__keep, data, number, NULL);
    Py_DECREF(number);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What _not_sent makes of the exception that is set. */
static PyObject *
stream_not_sent(StreamPath *self, Py_ssize_t size)
{
    PyObject *error, *number, *sent = NULL;

    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return NULL;
    error = take_exception();
    if ((number = PyLong_FromSsize_t(size)) != NULL) {
        sent = PyObject_CallMethodObjArgs((PyObject *)self, str__not_sent, error, number, NULL);
        Py_DECREF(number);
    }
    Py_DECREF(error);
    return sent;
}

/* How much the kernel has taken; -2: it failed, and an exception is set. */
static Py_ssize_t
stream_send_direct(StreamPath *self, PyObject *data)
{
#if HAS_DESCRIPTORS
    Py_ssize_t sent = send(self->send_fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
                           MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
#else
    (void)self;
    (void)data;
    PyErr_SetString(PyExc_OSError, "no descriptors");
#endif
    return -2;
}

static int
stream_send(StreamPath *self, PyObject *data)
{
    Py_ssize_t sent, size = size_of(data);
    PyObject *send, *result;

    if (size < 0)
        return -1;
    if (self->batch != NULL)
        self->batch->turn += 1 + size / TURN_BYTES;
    if (PyList_GET_SIZE(self->waiting)) /* the watcher tells when there is room */
        return stream_keep(self, data, 0);
    if (HAS_DESCRIPTORS && self->send_fd >= 0 && PyBytes_CheckExact(data)) {
        if ((sent = stream_send_direct(self, data)) >= 0)
            return sent < size ? stream_keep(self, data, sent) : 0;
        result = NULL;
    }
    else {
        if ((send = held(self->send)) == NULL)
            return -1;
        result = PyObject_CallOneArg(send, data);
        Py_DECREF(send);
    }
    if (result == NULL && (result = stream_not_sent(self, size)) == NULL)
        return -1;
    sent = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    if (sent == -1 && PyErr_Occurred())
        return -1;
    return sent < size ? stream_keep(self, data, sent) : 0;
}

static int
stream_flush_all(StreamPath *self)
{
    PyObject *data, *gathered = self->gathered;
    Py_ssize_t count = PyList_GET_SIZE(gathered);
    int failed;

    if (count == 0)
        return 0;
    data = count == 1 ? held(PyList_GET_ITEM(gathered, 0))
                      : PyObject_CallMethodOneArg(no_bytes, str_join, gathered);
    if (data == NULL)
        return -1;
    self->gathered_size = 0;
    if (self->batch != NULL)
        self->batch->turn += count / TURN_PIECES;
    failed = PyList_SetSlice(gathered, 0, PyList_GET_SIZE(gathered), NULL) < 0 ||
             stream_send(self, data) < 0;
    Py_DECREF(data);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(flush_doc,
"flush()\n--\n\nSend what was gathered, in one system call where the kernel takes it.");

static PyObject *
stream_flush(StreamPath *self, PyObject *unused)
{
    (void)unused;
    if (stream_flush_all(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Whether the sender must look if it may go on; -1: it raised. */
static int
stream_write_bytes(StreamPath *self, PyObject *data)
{
    Py_ssize_t size = size_of(data);

    if (size < 0)
        return -1;
    if (self->batch != NULL && self->batch->is_open) {
        if (PyList_GET_SIZE(self->gathered) == 0 &&
                PyList_Append(self->batch->written, (PyObject *)self) < 0)
            return -1;
        if (PyList_Append(self->gathered, data) < 0)
            return -1;
        self->gathered_size += size;
        if ((self->gathered_size >= GATHER ||
                PyList_GET_SIZE(self->gathered) >= TURN * TURN_PIECES) &&
                stream_flush_all(self) < 0)
            return -1;
    }
    else if (PyList_GET_SIZE(self->gathered) == 0) {
        if (stream_send(self, data) < 0)
            return -1;
    }
    else if (PyList_Append(self->gathered, data) < 0 || stream_flush_all(self) < 0)
        return -1;
    return self->waiting_size > 0 || (self->batch != NULL && self->batch->turn >= TURN);
}

PyDoc_STRVAR(write_doc,
"write(data)\n--\n\n"
"Send data: at once, or gathered while a batch is open, or when the kernel has room.\n\n"
"Whether the sender must look if it may go on: something waits for the kernel, or it has\n"
"had its turn.");

static PyObject *
stream_write(StreamPath *self, PyObject *data)
{
    int waits = stream_write_bytes(self, data);
    return waits < 0 ? NULL : PyBool_FromLong(waits);
}

/* Tells the receiver of the exception that is set; what is no Exception is set once more. */
static int
stream_failed(StreamPath *self)
{
    PyObject *result, *error = take_exception();
    PyObject *receiver = held(self->receiver);

    result = receiver == NULL ? NULL : PyObject_CallMethodOneArg(receiver, str_failed, error);
    Py_XDECREF(receiver);
    Py_XDECREF(result);
    if (result == NULL || PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        Py_DECREF(error);
        return result == NULL ? -1 : 0;
    }
    restore_exception(error);
    return -1;
}

/* Every stream flushes, and one that cannot fails alone; what is no Exception is raised. */
static int
batch_flush_all(Batch *batch)
{
    PyObject *error = NULL, *written = batch->written;
    Py_ssize_t i;

    batch->is_open = 0;
    for (i = 0; i < PyList_GET_SIZE(written); i++) {
        PyObject *stream = held(PyList_GET_ITEM(written, i));
        if (PyObject_TypeCheck(stream, &StreamPathType) &&
                stream_flush_all((StreamPath *)stream) < 0 &&
                stream_failed((StreamPath *)stream) < 0) {
            if (error == NULL)
                error = take_exception();
            else
                PyErr_Clear();
        }
        Py_DECREF(stream);
    }
    if (PyList_SetSlice(written, 0, PyList_GET_SIZE(written), NULL) < 0) {
        Py_XDECREF(error);
        return -1;
    }
    if (error != NULL)
        restore_exception(error);
    return error != NULL ? -1 : 0;
}

static PyObject *
batch_flush(Batch *self, PyObject *unused)
{
    (void)unused;
    if (batch_flush_all(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyTypeObject ConnectionPathType;
static PyObject *connection_received(PyObject *self, PyObject *data);

/* Lets the receiver have the data, and flushes what it has written, even if it raises. */
static PyObject *
stream_receive(StreamPath *self, PyObject *data)
{
    PyObject *receiver, *result, *error = NULL;
    Batch *batch = (Batch *)held((PyObject *)self->batch);

    if (batch == NULL)
        return NULL;
    if ((receiver = held(self->receiver)) == NULL) {
        Py_DECREF(batch);
        return NULL;
    }
    batch->is_open = 1;
    batch->turn = 0;
    result = PyObject_TypeCheck(receiver, &ConnectionPathType)
                 ? connection_received(receiver, data)
                 : PyObject_CallMethodOneArg(receiver, str_received, data);
    if (result == NULL)
        error = take_exception();
    if (batch_flush_all(batch) < 0) {
        Py_CLEAR(result);
        Py_XDECREF(error);
    }
    else if (error != NULL)
        restore_exception(error);
    batch->turn = 0;
    Py_DECREF(receiver);
    Py_DECREF(batch);
    return result;
}

PyDoc_STRVAR(readable_doc,
"readable()\n--\n\n"
"Read once, and flush what was written while the receiver dealt with it.\n\n"
"The hub's callback: what it raises is the receiver's failure, as in ``guard``.");

/* Small reads go through one buffer, which stays in the caches; the GIL is held. */
static PyObject *
stream_read_direct(StreamPath *self)
{
#if HAS_DESCRIPTORS
    static char buffer[READ_SIZE];
    Py_ssize_t size = recv(self->recv_fd, buffer, (size_t)self->read_size, MSG_DONTWAIT);

    return size < 0 ? PyErr_SetFromErrno(PyExc_OSError)
                    : PyBytes_FromStringAndSize(buffer, size);
#else
    (void)self;
    return NULL;
#endif
}

static PyObject *
stream_read(StreamPath *self)
{
    PyObject *recv, *number, *data;

    if (HAS_DESCRIPTORS && self->recv_fd >= 0 && !self->is_large &&
            self->read_size > 0 && self->read_size <= READ_SIZE)
        return stream_read_direct(self);
    if ((recv = held(self->recv)) == NULL)
        return NULL;
    if ((number = PyLong_FromSsize_t(self->read_size)) == NULL) {
        Py_DECREF(recv);
        return NULL;
    }
    data = PyObject_CallOneArg(recv, number);
    Py_DECREF(number);
    Py_DECREF(recv);
    return data;
}

static PyObject *
stream_read_once(StreamPath *self)
{
    PyObject *data = stream_read(self), *result = NULL;
    Py_ssize_t size;

    if (data == NULL) {
        if (PyErr_ExceptionMatches(PyExc_OSError)) {
            PyObject *error = take_exception();
            result = PyObject_CallMethodOneArg((PyObject *)self, str__not_read, error);
            Py_DECREF(error);
        }
        return result;
    }
    size = size_of(data);
    self->is_large = size > SMALL;
    if (size > 0)
        result = stream_receive(self, data);
    else if (size == 0)
        result = PyObject_CallMethodNoArgs((PyObject *)self, str__read_end);
    Py_DECREF(data);
    return result;
}

static PyObject *
stream_readable(StreamPath *self, PyObject *unused)
{
    PyObject *result = stream_read_once(self);

    (void)unused;
    if (result != NULL)
        return result;
    if (stream_failed(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef stream_methods[] = {
    {"readable", (PyCFunction)stream_readable, METH_NOARGS, readable_doc},
    {"write", (PyCFunction)stream_write, METH_O, write_doc},
    {"flush", (PyCFunction)stream_flush, METH_NOARGS, flush_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef stream_members[] = {
    {"_receiver", T_OBJECT_EX, offsetof(StreamPath, receiver), READONLY, NULL},
    {"_batch", T_OBJECT_EX, offsetof(StreamPath, batch), READONLY, NULL},
    {"_gathered", T_OBJECT_EX, offsetof(StreamPath, gathered), READONLY, NULL},
    {"_gathered_size", T_PYSSIZET, offsetof(StreamPath, gathered_size), 0, NULL},
    {"_waiting", T_OBJECT_EX, offsetof(StreamPath, waiting), READONLY, NULL},
    {"_waiting_size", T_PYSSIZET, offsetof(StreamPath, waiting_size), 0, NULL},
    {"read_size", T_PYSSIZET, offsetof(StreamPath, read_size), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef stream_attributes[] = {
    {"_recv", (getter)stream_get_recv, (setter)stream_set_recv, NULL, NULL},
    {"_send", (getter)stream_get_send, (setter)stream_set_send, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject StreamPathType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "faye_wsgi.transport._hotpath.StreamPath",
    .tp_basicsize = sizeof(StreamPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = stream_new,
    .tp_init = (initproc)stream_init,
    .tp_traverse = (traverseproc)stream_traverse,
    .tp_clear = (inquiry)stream_clear,
    .tp_dealloc = (destructor)stream_dealloc,
    .tp_methods = stream_methods,
    .tp_members = stream_members,
    .tp_getset = stream_attributes,
};

/* ---------------------------------------------------------------- InboxPath */

typedef struct {
    PyObject_HEAD
    PyObject *hub, *switch_to_hub, *messages, *waiter, *next_waiters;
    PyObject *jobs, *listener, *sink;
    Py_ssize_t bytes;
    char full, serving, ended, paused, is_awaited;
} InboxPath;

static int
inbox_init(InboxPath *self, PyObject *args, PyObject *kwargs)
{
    PyObject *hub, *bound;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "InboxPath() takes no keyword arguments");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O", &hub))
        return -1;
    if ((bound = PyObject_CallMethodOneArg(greenlet_switch, str___get__, hub)) == NULL)
        return -1;
    Py_XSETREF(self->switch_to_hub, bound);
    Py_INCREF(hub);
    Py_XSETREF(self->hub, hub);
    Py_XSETREF(self->messages, held(no_arguments)); /* stands for a queue never needed */
    Py_XSETREF(self->next_waiters, held(no_arguments));
    Py_XSETREF(self->jobs, held(no_arguments));
    return 0;
}

static int
inbox_traverse(InboxPath *self, visitproc visit, void *arg)
{
    Py_VISIT(self->hub);
    Py_VISIT(self->switch_to_hub);
    Py_VISIT(self->messages);
    Py_VISIT(self->waiter);
    Py_VISIT(self->next_waiters);
    Py_VISIT(self->jobs);
    Py_VISIT(self->listener);
    Py_VISIT(self->sink);
    return 0;
}

static int
inbox_clear(InboxPath *self)
{
    Py_CLEAR(self->hub);
    Py_CLEAR(self->switch_to_hub);
    Py_CLEAR(self->messages);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->next_waiters);
    Py_CLEAR(self->jobs);
    Py_CLEAR(self->listener);
    Py_CLEAR(self->sink);
    return 0;
}

static void
inbox_dealloc(InboxPath *self)
{
    PyObject_GC_UnTrack(self);
    inbox_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* The waiter, whose place the next one takes: a new reference. */
static PyObject *
inbox_next_waiter(InboxPath *self)
{
    Py_ssize_t others = count_of(self->next_waiters);
    PyObject *next = NULL, *waiter;

    if (others < 0)
        return NULL;
    if (others > 0) {
        next = PyObject_CallMethodOneArg(self->next_waiters, str_pop, zero);
        if (next == NULL)
            return NULL;
    }
    waiter = self->waiter;
    self->waiter = next;
    return waiter;
}

PyDoc_STRVAR(hand_out_doc,
"hand_out(messages)\n--\n\n"
"Take messages that arrived, and deliver them; whether reading must stop now.");

static PyObject *
inbox_hand_out(InboxPath *self, PyObject *messages)
{
    PyObject *waiter, *message, *result;

    if (is_set(self->waiter) && PyList_CheckExact(messages) && PyList_GET_SIZE(messages) == 1) {
        Py_ssize_t queued = count_of(self->messages);
        if (queued < 0)
            return NULL;
        if (queued == 0) {
            if ((waiter = inbox_next_waiter(self)) == NULL)
                return NULL;
            message = held(PyList_GET_ITEM(messages, 0));
            result = PyObject_CallMethodOneArg(waiter, str_switch, message);
            Py_DECREF(message);
            Py_DECREF(waiter);
            if (result == NULL)
                return NULL;
            Py_DECREF(result);
            Py_RETURN_FALSE;
        }
    }
    return PyObject_CallMethodOneArg((PyObject *)self, str__hand_out, messages);
}

/* The bytes that a message takes in memory, as faye_wsgi.driver.frames.stored_size counts. */
static Py_ssize_t
stored_size(PyObject *data)
{
    if (!PyUnicode_Check(data))
        return size_of(data);
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(data) < 0)
        return -1;
#endif
    return PyUnicode_GET_LENGTH(data) * (Py_ssize_t)PyUnicode_KIND(data);
}

/* A message was taken, or dealt with: it does not wait any more. */
static int
inbox_discount(InboxPath *self, PyObject *data)
{
    PyObject *result;
    Py_ssize_t size = stored_size(data);

    if (size < 0)
        return -1;
    self->bytes -= size;
    if (!self->full)
        return 0;
    result = PyObject_CallMethodNoArgs((PyObject *)self, str__check_relief);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The first message of a queue that has one. */
static PyObject *
inbox_pop(InboxPath *self)
{
    PyObject *data = PyObject_CallMethodNoArgs(self->messages, str_popleft);

    if (data == NULL)
        return NULL;
    self->serving = 1;
    if (inbox_discount(self, data) < 0)
        Py_CLEAR(data);
    return data;
}

/* Switches to the hub until there is a message. Steals the reference to the waiter. */
static PyObject *
inbox_wait(InboxPath *self, PyObject *waiter)
{
    PyObject *message, *bound = held(self->switch_to_hub);

    if (bound == NULL) {
        Py_DECREF(waiter);
        return NULL;
    }
    Py_INCREF(waiter);
    Py_XSETREF(self->waiter, waiter);
    message = PyObject_CallNoArgs(bound);
    if (message == NULL)
        tell_of_exception((PyObject *)self, str__forget, waiter);
    Py_DECREF(bound);
    Py_DECREF(waiter);
    return message;
}

PyDoc_STRVAR(take_doc,
"take(timeout=None)\n--\n\n"
"The next message, None at the end; TimeoutError after timeout seconds.");

static PyObject *
inbox_take(InboxPath *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *timeout = count > 0 ? args[0] : Py_None;

    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "take() takes at most 1 argument");
        return NULL;
    }
    if (!is_set(self->waiter)) {
        Py_ssize_t queued = count_of(self->messages);
        if (queued < 0)
            return NULL;
        if (queued > 0)
            return inbox_pop(self);
        if (timeout == Py_None && self->serving && !self->ended && !self->is_awaited) {
            PyObject *waiter = PyObject_CallNoArgs(get_current);
            if (waiter == NULL)
                return NULL;
            if (waiter != self->hub)
                return inbox_wait(self, waiter);
            Py_DECREF(waiter);
        }
    }
    return PyObject_CallMethodOneArg((PyObject *)self, str__take, timeout);
}

/* The event of a message, as its class makes it. */
static PyObject *
inbox_event(InboxPath *self, PyObject *data)
{
    PyTypeObject *type = (PyTypeObject *)message_event;
    PyObject *event = type->tp_new(type, no_arguments, NULL);

    if (event != NULL && (PyObject_SetAttr(event, str_data, data) < 0 ||
                          PyObject_SetAttr(event, str_target, self->sink) < 0))
        Py_CLEAR(event);
    return event;
}

/* Calls the listener with a message; what it raises is told to the hook. */
static int
inbox_tell(InboxPath *self, PyObject *data)
{
    PyObject *error, *result, *event, *listener = held(self->listener);

    if ((event = inbox_event(self, data)) == NULL) {
        Py_DECREF(listener);
        return -1;
    }
    result = PyObject_CallOneArg(listener, event);
    Py_DECREF(event);
    Py_DECREF(listener);
    if (result == NULL) {
        error = take_exception();
        result = PyObject_CallMethodOneArg((PyObject *)self, str__failed, error);
        Py_DECREF(error);
        if (result == NULL)
            return -1;
    }
    Py_DECREF(result);
    return inbox_discount(self, data);
}

PyDoc_STRVAR(tell_messages_doc,
"tell_messages()\n--\n\n"
"Tell the only listener of the messages that come next, until something else does.");

static PyObject *
inbox_tell_messages(InboxPath *self, PyObject *unused)
{
    PyObject *data, *result, *jobs = held(self->jobs);
    Py_ssize_t count;
    int failed = jobs == NULL;

    (void)unused;
    while (!failed && is_set(self->listener) && self->sink != NULL && !self->paused) {
        if ((count = PyObject_Size(jobs)) <= 0) {
            failed = count < 0;
            break;
        }
        if ((data = PyObject_CallMethodNoArgs(jobs, str_popleft)) == NULL) {
            failed = 1;
            break;
        }
        if (!PyUnicode_CheckExact(data) && !PyBytes_CheckExact(data)) {
            result = PyObject_CallMethodOneArg(jobs, str_appendleft, data);
            Py_DECREF(data);
            Py_XDECREF(result);
            failed = result == NULL;
            break;
        }
        failed = inbox_tell(self, data) < 0;
        Py_DECREF(data);
    }
    Py_XDECREF(jobs);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef inbox_methods[] = {
    {"tell_messages", (PyCFunction)inbox_tell_messages, METH_NOARGS, tell_messages_doc},
    {"hand_out", (PyCFunction)inbox_hand_out, METH_O, hand_out_doc},
    {"take", (PyCFunction)(void (*)(void))inbox_take, METH_FASTCALL, take_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef inbox_members[] = {
    {"_hub", T_OBJECT, offsetof(InboxPath, hub), READONLY, NULL},
    {"_switch", T_OBJECT, offsetof(InboxPath, switch_to_hub), READONLY, NULL},
    {"_messages", T_OBJECT, offsetof(InboxPath, messages), 0, NULL},
    {"_waiter", T_OBJECT, offsetof(InboxPath, waiter), 0, NULL},
    {"_next_waiters", T_OBJECT, offsetof(InboxPath, next_waiters), 0, NULL},
    {"_jobs", T_OBJECT, offsetof(InboxPath, jobs), 0, NULL},
    {"_listener", T_OBJECT, offsetof(InboxPath, listener), 0, NULL},
    {"_sink", T_OBJECT, offsetof(InboxPath, sink), 0, NULL},
    {"_bytes", T_PYSSIZET, offsetof(InboxPath, bytes), 0, NULL},
    {"_full", T_BOOL, offsetof(InboxPath, full), 0, NULL},
    {"_serving", T_BOOL, offsetof(InboxPath, serving), 0, NULL},
    {"_ended", T_BOOL, offsetof(InboxPath, ended), 0, NULL},
    {"_paused", T_BOOL, offsetof(InboxPath, paused), 0, NULL},
    {"is_awaited", T_BOOL, offsetof(InboxPath, is_awaited), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject InboxPathType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "faye_wsgi.transport._hotpath.InboxPath",
    .tp_basicsize = sizeof(InboxPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)inbox_init,
    .tp_traverse = (traverseproc)inbox_traverse,
    .tp_clear = (inquiry)inbox_clear,
    .tp_dealloc = (destructor)inbox_dealloc,
    .tp_methods = inbox_methods,
    .tp_members = inbox_members,
};

/* ---------------------------------------------------------------- OutboxPath */

typedef struct {
    PyObject_HEAD
    PyObject *plain, *stream, *build;
    PyObject *crossed; /* what other threads have asked for */
    unsigned long thread;
    char shares; /* its frames are those of others, too */
} OutboxPath;

static int
outbox_init(OutboxPath *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) || (kwargs != NULL && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "OutboxPath() takes no arguments");
        return -1;
    }
    self->thread = PyThread_get_thread_ident();
    Py_XSETREF(self->crossed, held(no_arguments));
    return 0;
}

static int
outbox_traverse(OutboxPath *self, visitproc visit, void *arg)
{
    Py_VISIT(self->plain);
    Py_VISIT(self->stream);
    Py_VISIT(self->build);
    Py_VISIT(self->crossed);
    return 0;
}

static int
outbox_clear(OutboxPath *self)
{
    Py_CLEAR(self->plain);
    Py_CLEAR(self->stream);
    Py_CLEAR(self->build);
    Py_CLEAR(self->crossed);
    return 0;
}

static void
outbox_dealloc(OutboxPath *self)
{
    PyObject_GC_UnTrack(self);
    outbox_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int
is_small(PyObject *message)
{
    if (PyUnicode_CheckExact(message))
        return PyUnicode_GET_LENGTH(message) < LARGE;
    return PyBytes_CheckExact(message) && PyBytes_GET_SIZE(message) < LARGE;
}

/* Whether a message is a frame on the stream, and no more; -1: it raised. */
static int
outbox_is_plain(OutboxPath *self)
{
    PyObject *state;
    Py_ssize_t crossed;
    long value;

    if (!is_set(self->plain) || !is_set(self->stream) || !is_set(self->build) ||
            PyThread_get_thread_ident() != self->thread)
        return 0;
    if ((crossed = count_of(self->crossed)) != 0)
        return crossed < 0 ? -1 : 0;
    if ((state = PyObject_GetAttr(self->plain, str_state)) == NULL)
        return -1;
    value = PyLong_AsLong(state);
    Py_DECREF(state);
    return value == -1 && PyErr_Occurred() ? -1 : value == OPEN;
}

static int
outbox_write(PyObject *stream, PyObject *frame)
{
    PyObject *result;
    int waits;

    if (PyObject_TypeCheck(stream, &StreamPathType))
        return stream_write_bytes((StreamPath *)stream, frame);
    if ((result = PyObject_CallMethodOneArg(stream, str_write, frame)) == NULL)
        return -1;
    waits = PyObject_IsTrue(result);
    Py_DECREF(result);
    return waits;
}

PyDoc_STRVAR(send_doc,
"send(message, timeout=None)\n--\n\n"
"Send a message; blocks while more than the high-water mark waits for the peer.");

static PyObject *
outbox_send(OutboxPath *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *frame, *build, *stream, *timeout = count > 1 ? args[1] : Py_None;
    int waits, plain;

    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes 1 or 2 arguments");
        return NULL;
    }
    if ((plain = timeout == Py_None && is_small(args[0]) ? outbox_is_plain(self) : 0) < 0)
        return NULL;
    if (!plain)
        return PyObject_CallMethodObjArgs((PyObject *)self, str__send, args[0], timeout, NULL);
    build = held(self->build);
    stream = held(self->stream);
    frame = PyObject_CallOneArg(build, args[0]);
    Py_DECREF(build);
    if (frame == NULL) {
        if (PyErr_ExceptionMatches(PyExc_Exception))
            tell_of_exception((PyObject *)self, str__not_built, NULL);
        Py_DECREF(stream);
        return NULL;
    }
    waits = outbox_write(stream, frame);
    Py_DECREF(frame);
    Py_DECREF(stream);
    if (waits < 0)
        return NULL;
    if (waits)
        return PyObject_CallMethodNoArgs((PyObject *)self, str__hold_back);
    Py_RETURN_NONE;
}

/* The frame of a message that goes to many: a new reference. */
static PyObject *
outbox_shared_frame(OutboxPath *self, PyObject *message, PyObject *shared)
{
    PyObject *build, *frame = PyDict_GetItemWithError(shared, Py_None);

    if (frame != NULL)
        return held(frame);
    if (PyErr_Occurred())
        return NULL;
    build = held(self->build);
    frame = PyObject_CallOneArg(build, message);
    Py_DECREF(build);
    if (frame != NULL && PyDict_SetItem(shared, Py_None, frame) < 0)
        Py_CLEAR(frame);
    return frame;
}

PyDoc_STRVAR(send_shared_doc,
"send_shared(message, shared)\n--\n\n"
"Send one that goes to many, without waiting; False: too much waits already.");

static PyObject *
outbox_send_shared(OutboxPath *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *frame, *stream;
    int waits, plain;

    if (count != 2 || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "send_shared() takes a message and a dict");
        return NULL;
    }
    if ((plain = self->shares ? outbox_is_plain(self) : 0) < 0)
        return NULL;
    if (!plain || !PyObject_TypeCheck(self->stream, &StreamPathType) ||
            PyList_GET_SIZE(((StreamPath *)self->stream)->waiting))
        return PyObject_CallMethodObjArgs((PyObject *)self, str__send_shared, args[0], args[1],
                                          NULL);
    stream = held(self->stream);
    frame = outbox_shared_frame(self, args[0], args[1]);
    waits = frame == NULL ? -1 : outbox_write(stream, frame);
    Py_XDECREF(frame);
    Py_DECREF(stream);
    if (waits < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyMethodDef outbox_methods[] = {
    {"send_shared", (PyCFunction)(void (*)(void))outbox_send_shared, METH_FASTCALL,
     send_shared_doc},
    {"send", (PyCFunction)(void (*)(void))outbox_send, METH_FASTCALL, send_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef outbox_members[] = {
    {"_thread", T_ULONG, offsetof(OutboxPath, thread), READONLY, NULL},
    {"_stream", T_OBJECT, offsetof(OutboxPath, stream), 0, NULL},
    {"_plain", T_OBJECT, offsetof(OutboxPath, plain), 0, NULL},
    {"_build", T_OBJECT, offsetof(OutboxPath, build), 0, NULL},
    {"_crossed", T_OBJECT, offsetof(OutboxPath, crossed), 0, NULL},
    {"_shares", T_BOOL, offsetof(OutboxPath, shares), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject OutboxPathType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "faye_wsgi.transport._hotpath.OutboxPath",
    .tp_basicsize = sizeof(OutboxPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)outbox_init,
    .tp_traverse = (traverseproc)outbox_traverse,
    .tp_clear = (inquiry)outbox_clear,
    .tp_dealloc = (destructor)outbox_dealloc,
    .tp_methods = outbox_methods,
    .tp_members = outbox_members,
};

/* ---------------------------------------------------------------- ConnectionPath */

typedef struct {
    PyObject_HEAD
    PyObject *driver, *inbox, *close_event, *step;
    char heard;
} ConnectionPath;

static int
connection_traverse(ConnectionPath *self, visitproc visit, void *arg)
{
    Py_VISIT(self->driver);
    Py_VISIT(self->inbox);
    Py_VISIT(self->close_event);
    Py_VISIT(self->step);
    return 0;
}

static int
connection_clear(ConnectionPath *self)
{
    Py_CLEAR(self->driver);
    Py_CLEAR(self->inbox);
    Py_CLEAR(self->close_event);
    Py_CLEAR(self->step);
    return 0;
}

static void
connection_dealloc(ConnectionPath *self)
{
    PyObject_GC_UnTrack(self);
    connection_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* What the driver makes of the data: a new pair. */
static PyObject *
connection_parse(ConnectionPath *self, PyObject *data)
{
    PyObject *receive, *pair, *driver = held(self->driver);

    if (driver == NULL)
        return NULL;
    receive = PyObject_GetAttr(driver, str_receive_messages);
    Py_DECREF(driver);
    if (receive == NULL)
        return NULL;
    pair = PyObject_CallOneArg(receive, data);
    Py_DECREF(receive);
    if (pair != NULL && (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)) {
        Py_DECREF(pair);
        PyErr_SetString(PyExc_TypeError, "receive_messages() returns messages and a rest");
        return NULL;
    }
    return pair;
}

/* Hands out what a pair has; whether reading must stop, -1: it raised. */
static int
connection_hand_out(ConnectionPath *self, PyObject *pair)
{
    PyObject *inbox, *result, *messages = PyTuple_GET_ITEM(pair, 0);
    int is_full, rest = PyObject_IsTrue(PyTuple_GET_ITEM(pair, 1));

    if (rest < 0)
        return -1;
    if (rest)
        result = PyObject_CallMethodObjArgs((PyObject *)self, str__receive_events, messages,
                                            PyTuple_GET_ITEM(pair, 1), NULL);
    else {
        if ((inbox = held(self->inbox)) == NULL)
            return -1;
        result = PyObject_TypeCheck(inbox, &InboxPathType)
                     ? inbox_hand_out((InboxPath *)inbox, messages)
                     : PyObject_CallMethodOneArg(inbox, str_hand_out, messages);
        Py_DECREF(inbox);
    }
    if (result == NULL)
        return -1;
    is_full = PyObject_IsTrue(result);
    Py_DECREF(result);
    return is_full;
}

PyDoc_STRVAR(received_doc,
"received(data)\n--\n\nBytes have arrived: one batch, whose answers go out together.");

static PyObject *
connection_received(PyObject *object, PyObject *data)
{
    ConnectionPath *self = (ConnectionPath *)object;
    PyObject *pair, *step, *result;
    int is_full;

    self->heard = 1;
    if (is_set(self->close_event))
        Py_RETURN_NONE; /* what follows the peer's close frame is nothing to us */
    if ((pair = connection_parse(self, data)) == NULL)
        return NULL;
    is_full = connection_hand_out(self, pair);
    Py_DECREF(pair);
    if (is_full < 0)
        return NULL;
    if (is_full) {
        if ((result = PyObject_CallMethodNoArgs(object, str__stop_reading)) == NULL)
            return NULL;
        Py_DECREF(result);
    }
    if (!is_set(self->step))
        Py_RETURN_NONE;
    step = held(self->step);
    result = PyObject_CallNoArgs(step);
    Py_DECREF(step);
    return result;
}

static PyMethodDef connection_methods[] = {
    {"received", (PyCFunction)connection_received, METH_O, received_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef connection_members[] = {
    {"driver", T_OBJECT, offsetof(ConnectionPath, driver), 0, NULL},
    {"_inbox", T_OBJECT, offsetof(ConnectionPath, inbox), 0, NULL},
    {"_close_event", T_OBJECT, offsetof(ConnectionPath, close_event), 0, NULL},
    {"_step", T_OBJECT, offsetof(ConnectionPath, step), 0, NULL},
    {"_heard", T_BOOL, offsetof(ConnectionPath, heard), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject ConnectionPathType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "faye_wsgi.transport._hotpath.ConnectionPath",
    .tp_basicsize = sizeof(ConnectionPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)connection_traverse,
    .tp_clear = (inquiry)connection_clear,
    .tp_dealloc = (destructor)connection_dealloc,
    .tp_methods = connection_methods,
    .tp_members = connection_members,
};

/* ---------------------------------------------------------------- the module */

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_hotpath", NULL, -1, NULL, NULL, NULL, NULL, NULL,
};

static int
prepare(void)
{
    PyObject *greenlets, *events, *type;

#define INTERN(name) \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(#name)) == NULL) \
        return -1;
    NAMES(INTERN)
    if ((greenlets = PyImport_ImportModule("greenlet")) == NULL)
        return -1;
    get_current = PyObject_GetAttrString(greenlets, "getcurrent");
    type = PyObject_GetAttrString(greenlets, "greenlet");
    greenlet_switch = type == NULL ? NULL : PyObject_GetAttr(type, str_switch);
    Py_XDECREF(type);
    Py_DECREF(greenlets);
    if ((events = PyImport_ImportModule("faye_wsgi.driver.events")) == NULL)
        return -1;
    message_event = PyObject_GetAttrString(events, "MessageEvent");
    Py_DECREF(events);
    if (message_event == NULL || !PyType_Check(message_event))
        return -1;
    no_arguments = PyTuple_New(0);
    no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    zero = PyLong_FromLong(0);
    return get_current == NULL || greenlet_switch == NULL || no_arguments == NULL ||
                   no_bytes == NULL || zero == NULL ? -1 : 0;
}

static int
add_type(PyObject *module, const char *name, PyTypeObject *type)
{
    if (PyType_Ready(type) < 0)
        return -1;
    Py_INCREF(type);
    if (PyModule_AddObject(module, name, (PyObject *)type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return 0;
}

PyMODINIT_FUNC
PyInit__hotpath(void)
{
    PyObject *module;

    if (prepare() < 0 || (module = PyModule_Create(&module_definition)) == NULL)
        return NULL;
    if (add_type(module, "Batch", &BatchType) < 0 ||
            add_type(module, "StreamPath", &StreamPathType) < 0 ||
            add_type(module, "InboxPath", &InboxPathType) < 0 ||
            add_type(module, "OutboxPath", &OutboxPathType) < 0 ||
            add_type(module, "ConnectionPath", &ConnectionPathType) < 0)
        Py_CLEAR(module);
    return module;
}
