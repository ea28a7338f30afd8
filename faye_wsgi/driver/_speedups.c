/* Optional accelerators for faye_wsgi.driver: pure functions without state. Each has a Python
 * twin under the same tests; for parse_messages that is the loop of Hybi.receive_data.
 *
 * The danger here is a length that a peer has declared: it goes up to 2^64 - 1. It is compared
 * with the bytes that are left, and never added to a pointer before that. Arguments are borrowed
 * references, which the caller keeps alive during the call. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

PyDoc_STRVAR(mask_doc,
"mask(data, key)\n--\n\n"
"Mask or unmask data (any length) with a key of 4 bytes, starting at key[0].");

static void
mask_bytes(unsigned char *out, const unsigned char *in, Py_ssize_t size,
           const unsigned char *key)
{
    uint32_t key32;
    uint64_t key64, word;
    Py_ssize_t i = 0;

    memcpy(&key32, key, 4);
    memcpy(&key64, key, 4);
    memcpy((unsigned char *)&key64 + 4, &key32, 4);
    /* memcpy keeps unaligned access defined; compilers turn the loop into vector code. */
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= key64;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++)
        out[i] = in[i] ^ key[i & 3];
}

static PyObject *
speedups_mask(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data, key;
    PyObject *result = NULL;

    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "mask() takes exactly 2 arguments");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(args[1], &key, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    if (key.len != 4)
        PyErr_SetString(PyExc_ValueError, "a masking key has 4 bytes");
    else if ((result = PyBytes_FromStringAndSize(NULL, data.len)) != NULL)
        mask_bytes((unsigned char *)PyBytes_AS_STRING(result), data.buf, data.len, key.buf);
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return result;
}

PyDoc_STRVAR(mask_pieces_doc,
"mask_pieces(pieces, key)\n--\n\n"
"mask() of several pieces (a list of bytes and bytearrays) of one payload, put together.");

/* The bytes of a piece, NULL with an error set if it is neither bytes nor a bytearray. */
static const unsigned char *
piece_bytes(PyObject *piece, Py_ssize_t *size)
{
    if (PyBytes_Check(piece)) {
        *size = PyBytes_GET_SIZE(piece);
        return (const unsigned char *)PyBytes_AS_STRING(piece);
    }
    if (PyByteArray_Check(piece)) {
        *size = PyByteArray_GET_SIZE(piece);
        return (const unsigned char *)PyByteArray_AS_STRING(piece);
    }
    PyErr_SetString(PyExc_TypeError, "a piece is bytes or a bytearray");
    return NULL;
}

static PyObject *
speedups_mask_pieces(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *in;
    unsigned char key[4];
    PyObject *result;
    Py_ssize_t i, size = 0, total = 0;

    (void)module;
    if (count != 2 || !PyList_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "mask_pieces() takes a list and bytes");
        return NULL;
    }
    if (PyBytes_GET_SIZE(args[1]) != 4) {
        PyErr_SetString(PyExc_ValueError, "a masking key has 4 bytes");
        return NULL;
    }
    for (i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        if (piece_bytes(PyList_GET_ITEM(args[0], i), &size) == NULL)
            return NULL;
        if (size > PY_SSIZE_T_MAX - total)
            return PyErr_NoMemory();
        total += size;
    }
    /* From here on nothing runs Python code, so the list stays as it is. */
    if ((result = PyBytes_FromStringAndSize(NULL, total)) == NULL)
        return NULL;
    for (i = 0, total = 0; i < PyList_GET_SIZE(args[0]); i++) {
        int turn;
        in = piece_bytes(PyList_GET_ITEM(args[0], i), &size);
        for (turn = 0; turn < 4; turn++)
            key[turn] = (unsigned char)PyBytes_AS_STRING(args[1])[(total + turn) & 3];
        mask_bytes((unsigned char *)PyBytes_AS_STRING(result) + total, in, size, key);
        total += size;
    }
    return result;
}

/* A text message from its payload; NULL without an error set if it is not UTF-8. */
static PyObject *
read_text(const unsigned char *in, Py_ssize_t size, const unsigned char *key)
{
    PyObject *text;
    unsigned char *out;
    uint64_t word, high = 0;
    Py_ssize_t i = 0;

    if (key == NULL)
        text = PyUnicode_DecodeUTF8((const char *)in, size, NULL);
    else {
        /* Nearly all text is ASCII, whose bytes can be unmasked into the string itself. */
        if ((text = PyUnicode_New(size, 127)) == NULL)
            return NULL;
        out = size ? PyUnicode_1BYTE_DATA(text) : NULL;
        mask_bytes(out, in, size, key);
        for (; i + 8 <= size; i += 8) {
            memcpy(&word, out + i, 8);
            high |= word;
        }
        for (; i < size; i++)
            high |= out[i];
        if (high & UINT64_C(0x8080808080808080)) {
            PyObject *decoded = PyUnicode_DecodeUTF8((const char *)out, size, NULL);
            Py_DECREF(text);
            text = decoded;
        }
    }
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return text;
}

static PyObject *
read_binary(const unsigned char *in, Py_ssize_t size, const unsigned char *key)
{
    PyObject *bytes = PyBytes_FromStringAndSize(key ? NULL : (const char *)in, size);
    if (bytes != NULL && key != NULL)
        mask_bytes((unsigned char *)PyBytes_AS_STRING(bytes), in, size, key);
    return bytes;
}

/* The size of the header of the frame at the start of data; *length gets that of the payload.
 * 0 if this is not a whole, unfragmented, correct message without RSV bits. */
static Py_ssize_t
measure_message(const unsigned char *data, Py_ssize_t size, int masked, uint64_t max_length,
                uint64_t *length)
{
    Py_ssize_t header = 2;
    uint64_t minimum = 0;
    int i;

    if (size < 2 || (data[1] >> 7) != masked || (data[0] != 0x81 && data[0] != 0x82))
        return 0;
    *length = data[1] & 0x7f;
    if (*length >= 126) {
        int extended = *length == 126 ? 2 : 8;
        minimum = *length == 126 ? 126 : 65536;
        header += extended;
        if (size < header)
            return 0;
        for (*length = 0, i = 2; i < header; i++)
            *length = *length << 8 | data[i];
    }
    header += masked ? 4 : 0;
    if (*length < minimum || *length > max_length || size < header ||
            *length > (uint64_t)(size - header))
        return 0;
    return header;
}

PyDoc_STRVAR(parse_messages_doc,
"parse_messages(masked, max_length, data)\n--\n\n"
"The run of whole, unfragmented messages at the start of data, a list of str and bytes,\n"
"and the rest of data. It ends before anything else, good or bad.");

static PyObject *
speedups_parse_messages(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *data;
    Py_ssize_t size, pos = 0;
    PyObject *rest, *pair, *run;
    uint64_t max_length;
    int masked;

    (void)module;
    if (count != 3 || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "parse_messages() takes a bool, an int and bytes");
        return NULL;
    }
    masked = PyObject_IsTrue(args[0]);
    max_length = PyLong_AsUnsignedLongLong(args[1]);
    if (masked < 0 || PyErr_Occurred() || (run = PyList_New(0)) == NULL)
        return NULL;
    data = (const unsigned char *)PyBytes_AS_STRING(args[2]);
    size = PyBytes_GET_SIZE(args[2]);
    while (run != NULL) {
        uint64_t length = 0;
        Py_ssize_t header = measure_message(data + pos, size - pos, masked, max_length, &length);
        const unsigned char *payload = data + pos + header, *key = masked ? payload - 4 : NULL;
        PyObject *message;

        if (header == 0)
            break;
        if (data[pos] == 0x81)
            message = read_text(payload, (Py_ssize_t)length, key);
        else
            message = read_binary(payload, (Py_ssize_t)length, key);
        if (message == NULL && !PyErr_Occurred())
            break; /* It is not UTF-8: the driver reports that. */
        if (message == NULL || PyList_Append(run, message) < 0)
            Py_CLEAR(run);
        Py_XDECREF(message);
        pos += header + (Py_ssize_t)length;
    }
    if (run == NULL)
        return NULL;
    rest = PyBytes_FromStringAndSize((const char *)data + pos, size - pos);
    pair = rest == NULL ? NULL : PyTuple_Pack(2, run, rest);
    Py_XDECREF(rest);
    Py_DECREF(run);
    return pair;
}

/* A whole frame, its header in the shortest form; a key masks it. */
static PyObject *
new_frame(unsigned char first, const char *payload, Py_ssize_t size, const char *key)
{
    unsigned char header[14];
    Py_ssize_t length = 2;
    PyObject *frame;
    char *out;
    int i;

    header[0] = first;
    if (size < 126)
        header[1] = (unsigned char)size;
    else {
        length = size < 65536 ? 4 : 10;
        header[1] = size < 65536 ? 126 : 127;
        for (i = 2; i < length; i++)
            header[i] = (unsigned char)((uint64_t)size >> 8 * (length - 1 - i));
    }
    if (key != NULL) {
        header[1] |= 0x80;
        memcpy(header + length, key, 4);
        length += 4;
    }
    if ((frame = PyBytes_FromStringAndSize(NULL, length + size)) == NULL)
        return NULL;
    out = PyBytes_AS_STRING(frame);
    memcpy(out, header, (size_t)length);
    if (key != NULL)
        mask_bytes((unsigned char *)out + length, (const unsigned char *)payload, size,
                   (const unsigned char *)key);
    else if (size)
        memcpy(out + length, payload, (size_t)size);
    return frame;
}

/* A whole frame whose payload is a bytes-like object. */
static PyObject *
frame_of(unsigned char first, PyObject *payload, const char *key)
{
    Py_buffer data;
    PyObject *frame;

    if (PyObject_GetBuffer(payload, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    frame = new_frame(first, data.buf, data.len, key);
    PyBuffer_Release(&data);
    return frame;
}

/* Reads the argument that is a masking key, None or not there; returns 0 with an error set. */
static int
read_key(PyObject *const *args, Py_ssize_t count, Py_ssize_t place, const char **key)
{
    *key = NULL;
    if (count <= place || args[place] == Py_None)
        return 1;
    if (!PyBytes_CheckExact(args[place])) {
        PyErr_SetString(PyExc_TypeError, "a masking key is bytes");
        return 0;
    }
    if (PyBytes_GET_SIZE(args[place]) != 4) {
        PyErr_SetString(PyExc_ValueError, "a masking key has 4 bytes");
        return 0;
    }
    *key = PyBytes_AS_STRING(args[place]);
    return 1;
}

PyDoc_STRVAR(build_frame_doc,
"build_frame(first, payload, key=None)\n--\n\n"
"One frame: first is FIN, RSV1-3 and the opcode; masked where there is a key.");

static PyObject *
speedups_build_frame(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const char *key;
    long first;

    (void)module;
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "build_frame() takes an int, a payload, and a key");
        return NULL;
    }
    first = PyLong_AsLong(args[0]);
    if ((first == -1 && PyErr_Occurred()) || !read_key(args, count, 2, &key))
        return NULL;
    if (first < 0 || first > 255) {
        PyErr_SetString(PyExc_ValueError, "the first byte of a frame is one byte");
        return NULL;
    }
    return frame_of((unsigned char)first, args[1], key);
}

PyDoc_STRVAR(build_message_doc,
"build_message(message, key=None)\n--\n\n"
"The one frame of a message: of text for a str, else of bytes; masked where there is a key.");

static PyObject *
speedups_build_message(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *frame, *encoded, *message = count > 0 ? args[0] : NULL;
    const char *key;

    (void)module;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "build_message() takes a message, and a key");
        return NULL;
    }
    if (!read_key(args, count, 1, &key))
        return NULL;
    if (PyUnicode_Check(message)) {
#if PY_VERSION_HEX < 0x030C0000
        if (PyUnicode_READY(message) < 0)
            return NULL;
#endif
        if (PyUnicode_IS_ASCII(message))
            return new_frame(0x81, (const char *)PyUnicode_1BYTE_DATA(message),
                             PyUnicode_GET_LENGTH(message), key);
        encoded = PyUnicode_AsUTF8String(message);
    }
    else if (PyMemoryView_Check(message))
        encoded = PyBytes_FromObject(message); /* Its bytes may lie apart. */
    else
        return frame_of(0x82, message, key);
    if (encoded == NULL)
        return NULL;
    frame = frame_of(PyUnicode_Check(message) ? 0x81 : 0x82, encoded, key);
    Py_DECREF(encoded);
    return frame;
}

PyDoc_STRVAR(stored_size_doc,
"stored_size(data)\n--\n\n"
"The bytes that a message takes in memory: a text has 1, 2 or 4 for each character.");

static PyObject *
speedups_stored_size(PyObject *module, PyObject *data)
{
    (void)module;
    if (PyBytes_Check(data))
        return PyLong_FromSsize_t(PyBytes_GET_SIZE(data));
    if (!PyUnicode_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "stored_size() takes str or bytes");
        return NULL;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(data) < 0)
        return NULL;
#endif
    return PyLong_FromSsize_t(PyUnicode_GET_LENGTH(data) * (Py_ssize_t)PyUnicode_KIND(data));
}

static PyMethodDef methods[] = {
    {"mask", (PyCFunction)(void (*)(void))speedups_mask, METH_FASTCALL, mask_doc},
    {"mask_pieces", (PyCFunction)(void (*)(void))speedups_mask_pieces, METH_FASTCALL,
     mask_pieces_doc},
    {"parse_messages", (PyCFunction)(void (*)(void))speedups_parse_messages, METH_FASTCALL,
     parse_messages_doc},
    {"build_frame", (PyCFunction)(void (*)(void))speedups_build_frame, METH_FASTCALL,
     build_frame_doc},
    {"build_message", (PyCFunction)(void (*)(void))speedups_build_message, METH_FASTCALL,
     build_message_doc},
    {"stored_size", (PyCFunction)speedups_stored_size, METH_O, stored_size_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModule_Create(&module);
}
