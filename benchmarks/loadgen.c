/*
 * loadgen: a load generator for echo servers, raw TCP or WebSocket.
 *
 * It must never be what is measured, so it is one thread on one processor that spins: while it
 * waits for a message, epoll_wait never sleeps, and a reply is answered the moment it is there.
 * A generator that sleeps makes the server pay for waking it, and hides what the server costs.
 *
 * It reads the processor time of the server's processes itself, at the first and the last instant
 * of the measured interval, and prints one line of JSON. --pids are the server's processes,
 * --broker those of its Redis, which are counted apart. "generator_idle" is the share of the
 * interval in which it had nothing to do: near zero, the generator was the bottleneck.
 *
 *     cc -O2 -o loadgen loadgen.c && ./loadgen --port 8000 --path /echo --connections 100
 *
 * Modes (--mode):
 *     echo     keep --window messages in flight on every connection, count and check the echoes
 *     churn    connect, handshake, echo one message, close; and again
 *     idle     open the connections, echo one message on each, print a line, hold them until
 *              something arrives on the standard input
 *     receive  count the messages that the server sends to all connections; with --publish the
 *              first connection sends --window of them to be broadcast, and one more whenever
 *              all have one, or with --rate so many a second; with --events they are those of
 *              EventSource, over HTTP, and the first connection publishes by POST /publish
 *
 * With --socketio a message is a Socket.IO event "all" whose argument has --size bytes. With
 * --rate a message is late from the moment at which it was due, sent or not.
 *
 * With --tls it speaks TLS (compile with -DWITH_TLS -lssl -lcrypto) and trusts whatever it meets;
 * with --deflate FILE it sends the compressed message in FILE, and counts compressed answers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

/* ---------------------------------------------------------------- settings */

enum mode { ECHO, CHURN, IDLE, RECEIVE };
static const char *const MODES[] = {"echo", "churn", "idle", "receive"};

enum { MAX_PROCESSES = 256, MAX_OPENING = 64, READ_SIZE = 1 << 20, HEAD_SIZE = 4096 };
enum { MAX_LATE = 64 }; /* messages in flight with --rate: more, and the server is overrun */
#define REGISTER_SECONDS 1.0
enum { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, RSV1 = 0x40 };

/* The sample nonce of RFC 6455 1.3, and the answer to it: no SHA-1 needed here. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct processes {
    pid_t ids[MAX_PROCESSES];
    int count;
};

static struct {
    enum mode mode;
    const char *address, *host, *path;
    int port, connections, window, cpu;
    size_t size;
    bool raw, binary, publish, events, socketio, tls, spin;
    const char *deflate;
    double seconds, warmup, timeout, rate;
    uint64_t messages;
    struct processes server, broker;
} set = {.address = "127.0.0.1", .path = "/", .connections = 1, .window = 1, .cpu = -1,
         .size = 128, .spin = true, .seconds = 2, .warmup = 0.3, .timeout = 20};

/* ------------------------------------------------------------------- state */

enum phase { UNUSED, CONNECTING, SECURING, HANDSHAKE, JOINING, OPEN, CLOSING, ENDED };

struct connection {
    int fd;
    enum phase phase;
    bool watching_output;
    uint64_t queued, sent;         /* bytes of our messages: to be sent, and taken by the kernel */
    uint64_t *times;               /* when each message in flight was sent: a ring */
    unsigned oldest, in_flight;
    uint64_t started;              /* churn: when this cycle began */
    uint64_t received;             /* messages in the measured interval */
    uint64_t heard;                /* messages since the start */
    uint8_t header[10];            /* the header of the frame that is coming in */
    unsigned header_length;
    bool in_payload;
    uint64_t frame_left, message_length;
    uint8_t kind[2];               /* Socket.IO: the types of the packets, of both layers */
    char *head;                    /* the response to the handshake */
    size_t head_length;
    void *session;                 /* TLS */
};

static struct connection *connections;
static struct sockaddr_in server;
static int poller;
static uint64_t now;
static int opening, open_count, ended_count;
static bool measuring, stopping;
static uint64_t counted;           /* messages (churn: cycles) in the measured interval */
static uint64_t total;             /* the same since the start: progress */
static uint64_t completed;         /* messages that all connections have got */
static uint64_t due;               /* --rate: when the next message is to be sent */

static uint8_t *tape;              /* our message as it goes over the wire, window + 1 times */
static size_t wire_length, tape_length;
static uint8_t *payload;
static char *request;
static uint8_t *input;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("{\"error\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    fflush(stdout);
    exit(1);
}

static uint64_t clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t nanoseconds(double seconds) { return (uint64_t)(seconds * 1e9); }

/* The processor time of processes, in nanoseconds: exact, and with the threads that have ended. */
static uint64_t cpu_of(const struct processes *processes) {
    uint64_t sum = 0;
    for (int i = 0; i < processes->count; i++) {
        clockid_t clock;
        struct timespec t;
        if (clock_getcpuclockid(processes->ids[i], &clock) || clock_gettime(clock, &t))
            fail("process %d of the server is gone", (int)processes->ids[i]);
        sum += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    return sum;
}

/* ----------------------------------------------------------------- latency */

/* 64 buckets for each power of two: a quantile is right to 1.6 %. */
enum { SUB_BITS = 6, SUB = 1 << SUB_BITS };
static uint64_t histogram[64 * SUB];
static uint64_t longest;

static unsigned bucket_of(uint64_t value) {
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (unsigned)((value >> shift) & (SUB - 1));
}

static double bucket_middle(unsigned bucket) {
    if (bucket < SUB)
        return bucket;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    return ((double)((bucket & (SUB - 1)) + SUB) + 0.5) * (double)(1ull << shift);
}

static double quantile_us(double share) {
    uint64_t all = 0, seen = 0;
    for (unsigned i = 0; i < 64 * SUB; i++)
        all += histogram[i];
    for (unsigned i = 0; i < 64 * SUB; i++) {
        seen += histogram[i];
        if (all && (double)seen >= share * (double)all)
            return bucket_middle(i) / 1000;
    }
    return 0;
}

static void count(struct connection *c, uint64_t since) {
    total++;
    if (!measuring)
        return;
    uint64_t taken = now - since;
    counted++;
    c->received++;
    histogram[bucket_of(taken)]++;
    if (taken > longest)
        longest = taken;
}

/* --------------------------------------------------------------------- TLS */

#ifdef WITH_TLS
static SSL_CTX *context;

static void prepare_tls(void) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static ssize_t result_of(struct connection *c, int done) {
    if (done > 0)
        return done;
    int error = SSL_get_error(c->session, done);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

/* Whether the handshake is done. */
static bool secure(struct connection *c) {
    if (!c->session) {
        c->session = SSL_new(context);
        SSL_set_fd(c->session, c->fd);
    }
    ssize_t done = result_of(c, SSL_connect(c->session));
    if (done <= 0 && errno != EAGAIN)
        fail("the TLS handshake failed");
    return done > 0;
}

static ssize_t receive(struct connection *c, void *data, size_t length) {
    if (!c->session)
        return recv(c->fd, data, length, 0);
    return result_of(c, SSL_read(c->session, data, (int)length));
}

static ssize_t transmit(struct connection *c, const void *data, size_t length) {
    if (!c->session)
        return send(c->fd, data, length, MSG_NOSIGNAL);
    return result_of(c, SSL_write(c->session, data, (int)length));
}

static bool has_pending(struct connection *c) { return c->session && SSL_pending(c->session); }

static void end_sending(struct connection *c) {
    if (c->session)
        SSL_shutdown(c->session);
    shutdown(c->fd, SHUT_WR);
}

static void forget_session(struct connection *c) { SSL_free(c->session); }
#else
static void prepare_tls(void) { fail("this load generator was built without TLS"); }
static bool secure(struct connection *c) { return c->fd >= 0; }

static ssize_t receive(struct connection *c, void *data, size_t length) {
    return recv(c->fd, data, length, 0);
}

static ssize_t transmit(struct connection *c, const void *data, size_t length) {
    return send(c->fd, data, length, MSG_NOSIGNAL);
}

static bool has_pending(struct connection *c) { return c->session; }
static void end_sending(struct connection *c) { shutdown(c->fd, SHUT_WR); }
static void forget_session(struct connection *c) { c->session = NULL; }
#endif

/* ----------------------------------------------------------------- sending */

static size_t write_header(uint8_t *to, uint8_t opcode, size_t length) {
    to[0] = 0x80 | opcode;
    if (length < 126) {
        to[1] = 0x80 | (uint8_t)length;
        return 2;
    }
    unsigned bytes = length < 65536 ? 2 : 8;
    to[1] = 0x80 | (bytes == 2 ? 126 : 127);
    for (unsigned i = 0; i < bytes; i++)
        to[2 + i] = (uint8_t)((uint64_t)length >> (8 * (bytes - 1 - i)));
    return 2 + bytes;
}

static size_t write_frame(uint8_t *to, uint8_t opcode, const uint8_t *data, size_t length) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = write_header(to, opcode, length);
    memcpy(to + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < length; i++)
        to[at + i] = data[i] ^ mask[i & 3];
    return at + length;
}

static size_t read_compressed(uint8_t *to, size_t room) {
    FILE *file = fopen(set.deflate, "rb");
    size_t length = file ? fread(to, 1, room, file) : 0;
    if (!length)
        fail("no compressed message in %s", set.deflate);
    fclose(file);
    return length;
}

/* A Socket.IO event: 4 is Engine.IO's message, 2 Socket.IO's event. */
static const char EVENT_BEGIN[] = "42[\"all\",\"", EVENT_END[] = "\"]";

static void wrap_payload(void) {
    size_t begin = sizeof EVENT_BEGIN - 1, end = sizeof EVENT_END - 1;
    uint8_t *whole = malloc(begin + set.size + end);
    memcpy(whole, EVENT_BEGIN, begin);
    memcpy(whole + begin, payload, set.size);
    memcpy(whole + begin + set.size, EVENT_END, end);
    free(payload);
    payload = whole;
    set.size += begin + end;
}

static uint8_t *frame_of_payload(void) {
    uint8_t *one = malloc(set.size + 14), opcode = set.binary ? OP_BINARY : OP_TEXT;
    wire_length = set.size;
    if (set.deflate && !set.raw) {
        wire_length = read_compressed(payload, set.size);
        opcode |= RSV1;
    }
    if (set.raw)
        memcpy(one, payload, wire_length);
    else
        wire_length = write_frame(one, opcode, payload, wire_length);
    return one;
}

static uint8_t *post_of_payload(void) {
    char *one;
    int length = asprintf(&one,
                          "POST /publish HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\n"
                          "Content-Length: %zu\r\n\r\n%.*s",
                          set.host, set.size, (int)set.size, (const char *)payload);
    if (length < 0)
        fail("out of memory");
    wire_length = (size_t)length;
    return (uint8_t *)one;
}

static void prepare_messages(void) {
    payload = malloc(set.size + 1);
    for (size_t i = 0; i < set.size; i++)
        payload[i] = (uint8_t)('a' + i % 26);
    if (set.socketio)
        wrap_payload();
    uint8_t *one = set.events ? post_of_payload() : frame_of_payload();
    tape_length = wire_length * ((size_t)set.window + 1);
    tape = malloc(tape_length);
    for (int i = 0; i <= set.window; i++)
        memcpy(tape + (size_t)i * wire_length, one, wire_length);
    free(one);
}

static void prepare_request(void) {
    const char *form = "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
                       "Sec-WebSocket-Version: 13\r\n%s\r\n";
    const char *offer = set.deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "";
    if (set.events)
        form = "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s\r\n";
    if (asprintf(&request, form, set.path, set.host, offer) < 0)
        fail("out of memory");
}

static void watch(struct connection *c, bool output) {
    if (c->watching_output == output)
        return;
    c->watching_output = output;
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush_output(struct connection *c) {
    while (c->sent < c->queued) {
        size_t at = c->sent % wire_length, length = tape_length - at;
        if (length > c->queued - c->sent)
            length = c->queued - c->sent;
        ssize_t taken = transmit(c, tape + at, length);
        if (taken < 0 && errno != EAGAIN)
            fail("send: %s", strerror(errno));
        if (taken < 0)
            break;
        c->sent += (uint64_t)taken;
    }
    watch(c, c->sent < c->queued);
}

/* Each message that is due leaves with the others of its turn, in one system call. */
static void queue_message_of(struct connection *c, uint64_t time) {
    c->times[(c->oldest + c->in_flight++) % (unsigned)set.window] = time;
    c->queued += wire_length;
}

static void queue_message(struct connection *c) { queue_message_of(c, now); }

/* With --events the first connection publishes, and is no receiver. */
static bool is_poster(const struct connection *c) {
    return set.events && set.publish && c == connections;
}

static int receivers(void) { return set.connections - is_poster(connections); }

static void send_whole(struct connection *c, const void *data, size_t length) {
    if (transmit(c, data, length) != (ssize_t)length)
        fail("a short write: %s", strerror(errno));
}

/* ------------------------------------------------------- the life of a connection */

static void start_connection(struct connection *c) {
    uint64_t *times = c->times;
    uint64_t received = c->received;
    char *head = c->head;
    *c = (struct connection){.times = times, .received = received, .head = head};
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->phase = CONNECTING;
    c->watching_output = true;
    c->started = now;
    opening++;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

static void opened(struct connection *c) {
    opening--;
    open_count++;
    c->phase = OPEN;
    if (set.mode == CHURN) {
        queue_message(c);
        flush_output(c);
    }
}

static void begin(struct connection *c) {
    if (set.raw || is_poster(c)) {
        opened(c);
        return;
    }
    c->phase = HANDSHAKE;
    if (!c->head)
        c->head = malloc(HEAD_SIZE);
    send_whole(c, request, strlen(request));
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        fail("connect: %s", strerror(error));
    watch(c, false);
    c->phase = SECURING;
    if (!set.tls || secure(c))
        begin(c);
}

/* A short text, outside the traffic that is measured. */
static void send_text(struct connection *c, const char *text) {
    uint8_t frame[32];
    send_whole(c, frame, write_frame(frame, OP_TEXT, (const uint8_t *)text, strlen(text)));
}

static void start_closing(struct connection *c) {
    uint8_t frame[8];
    static const uint8_t code[2] = {1000 >> 8, 1000 & 255};
    c->phase = CLOSING;
    if (set.raw || set.events)
        end_sending(c);
    else
        send_whole(c, frame, write_frame(frame, OP_CLOSE, code, 2));
}

static void ended(struct connection *c) {
    if (c->phase != CLOSING && !stopping)
        fail("the server closed a connection in phase %d", (int)c->phase);
    forget_session(c);
    close(c->fd);
    c->phase = ENDED;
    open_count--;
    ended_count++;
    if (set.mode != CHURN)
        return;
    count(c, c->started);
    if (!stopping)
        start_connection(c);
}

/* --------------------------------------------------------------- receiving */

static void publish_next(struct connection *c) {
    completed++;
    c->in_flight--;
    c->oldest = (c->oldest + 1) % (unsigned)set.window;
    if (stopping || set.rate)
        return;
    queue_message(c);
    flush_output(c);
}

static void publish_due(struct connection *c) {
    for (; due <= now; due += nanoseconds(1 / set.rate)) {
        if (c->in_flight == (unsigned)set.window)
            fail("the server cannot keep up with %g messages a second", set.rate);
        queue_message_of(c, due);
    }
    flush_output(c);
}

static void got_message(struct connection *c) {
    switch (set.mode) {
    case ECHO:
    case IDLE:
        if (!c->in_flight--)
            fail("a message that nobody sent");
        count(c, c->times[c->oldest]);
        c->oldest = (c->oldest + 1) % (unsigned)set.window;
        if (!stopping && set.mode == ECHO)
            queue_message(c);
        break;
    case CHURN:
        start_closing(c);
        break;
    case RECEIVE:
        count(c, set.publish ? connections[0].times[c->heard++ % (unsigned)set.window] : now);
        if (set.publish && total == (completed + 1) * (uint64_t)receivers())
            publish_next(&connections[0]);
    }
}

/* Whether this message is one of Socket.IO's own, and not an event. */
static bool is_control(const struct connection *c) {
    return set.socketio && memcmp(c->kind, EVENT_BEGIN, sizeof c->kind);
}

/* Engine.IO's handshake is "0{…}", its ping "2"; Socket.IO's answer to "40" is "40{…}". */
static void answer_control(struct connection *c) {
    if (c->kind[0] == '0')
        send_text(c, "40");
    else if (c->kind[0] == '2')
        send_text(c, "3");
    else if (!memcmp(c->kind, "40", 2))
        opened(c);
    else
        fail("a Socket.IO packet %.2s", (const char *)c->kind);
}

static void check_payload(struct connection *c, const uint8_t *data, size_t length) {
    uint64_t at = c->message_length;
    for (uint64_t i = at; i < sizeof c->kind && i < at + length; i++)
        c->kind[i] = data[i - at];
    if ((set.deflate && !set.raw) || is_control(c))
        return;
    if (at + length > set.size && (set.mode != RECEIVE || set.publish))
        fail("a message is longer than %zu bytes", set.size);
    size_t checked = at >= 16 || at >= set.size ? 0 : 16 - at;
    if (checked > length)
        checked = length;
    if (set.mode != RECEIVE && checked && memcmp(data, payload + at, checked))
        fail("the payload of an echo is wrong");
}

static void frame_ended(struct connection *c) {
    uint8_t opcode = c->header[0] & 15;
    bool final = c->header[0] & 128;
    c->header_length = 0;
    c->in_payload = false;
    if (opcode == OP_CLOSE && c->phase != CLOSING && !stopping)
        fail("the server sent a close frame");
    if (opcode >= 8 || !final)
        return;
    if (is_control(c)) {
        c->message_length = 0;
        answer_control(c);
        return;
    }
    if (c->message_length != set.size && !set.deflate && (set.mode != RECEIVE || set.publish))
        fail("a message of %llu bytes instead of %zu",
             (unsigned long long)c->message_length, set.size);
    c->message_length = 0;
    got_message(c);
}

static void header_ended(struct connection *c) {
    const uint8_t *h = c->header;
    uint8_t opcode = h[0] & 15, expected = set.binary ? OP_BINARY : OP_TEXT;
    if (h[1] & 128)
        fail("the server masked a frame");
    if ((h[0] & 0x70) != (set.deflate && opcode && opcode < 8 ? RSV1 : 0))
        fail("a frame has the wrong RSV bits");
    if (opcode && opcode < 8 && opcode != expected && set.mode != RECEIVE)
        fail("a message came back with opcode %d", opcode);
    c->frame_left = h[1] & 127;
    if (c->header_length > 2)
        c->frame_left = 0;
    for (unsigned i = 2; i < c->header_length; i++)
        c->frame_left = c->frame_left << 8 | h[i];
    c->in_payload = true;
    if (!c->frame_left)
        frame_ended(c);
}

static unsigned header_size(const struct connection *c) {
    unsigned length = c->header_length < 2 ? 0 : c->header[1] & 127;
    return length == 126 ? 4 : length == 127 ? 10 : 2;
}

static void parse_frames(struct connection *c, const uint8_t *data, size_t length) {
    while (length) {
        if (!c->in_payload) {
            c->header[c->header_length++] = *data++;
            length--;
            if (c->header_length >= 2 && c->header_length == header_size(c))
                header_ended(c);
            continue;
        }
        size_t part = length < c->frame_left ? length : (size_t)c->frame_left;
        if ((c->header[0] & 15) < 8) {
            check_payload(c, data, part);
            c->message_length += part;
        }
        data += part;
        length -= part;
        c->frame_left -= part;
        if (!c->frame_left)
            frame_ended(c);
    }
}

static void parse_raw(struct connection *c, const uint8_t *data, size_t length) {
    while (length) {
        size_t part = set.size - (size_t)c->message_length;
        if (part > length)
            part = length;
        check_payload(c, data, part);
        c->message_length += part;
        data += part;
        length -= part;
        if (c->message_length == set.size) {
            c->message_length = 0;
            got_message(c);
        }
    }
}

/* An event is a line "data: …"; sizes of chunks, in between, never begin with that. */
static const char DATA[] = "data: ";

static void parse_events(struct connection *c, const uint8_t *data, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (data[i] == '\n') {
            c->header_length = 0;
        } else if (c->header_length < sizeof DATA - 1) {
            c->header[c->header_length++] = data[i];
            if (c->header_length == sizeof DATA - 1 && !memcmp(c->header, DATA, sizeof DATA - 1))
                got_message(c);
        }
    }
}

static void parse_response(struct connection *c, const uint8_t *data, size_t length) {
    size_t before = c->head_length, room = HEAD_SIZE - 1 - before;
    size_t part = length < room ? length : room;
    memcpy(c->head + before, data, part);
    c->head_length += part;
    c->head[c->head_length] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end && c->head_length < HEAD_SIZE - 1)
        return;
    const char *status = set.events ? "HTTP/1.1 200" : "HTTP/1.1 101";
    if (!end || strncmp(c->head, status, 12) || (!set.events && !strstr(c->head, ACCEPT)))
        fail("the handshake failed: %.12s", c->head);
    size_t used = (size_t)(end + 4 - c->head) - before;
    c->phase = JOINING;
    if (!set.socketio)
        opened(c);
    (set.events ? parse_events : parse_frames)(c, data + used, length - used);
}

static void readable(struct connection *c) {
    if (c->phase == SECURING) {
        if (secure(c))
            begin(c);
        return;
    }
    ssize_t length = receive(c, input, READ_SIZE);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length < 0 && c->phase != CLOSING && !stopping)
        fail("recv: %s", strerror(errno));
    now = clock_now();
    if (length <= 0) {
        ended(c);
        return;
    }
    if (c->phase == HANDSHAKE)
        parse_response(c, input, (size_t)length);
    else if (set.events && !is_poster(c))
        parse_events(c, input, (size_t)length);
    else if (set.raw)
        parse_raw(c, input, (size_t)length);
    else if (!is_poster(c))
        parse_frames(c, input, (size_t)length);
    if (c->phase == OPEN && c->sent < c->queued)
        flush_output(c);
    if (has_pending(c))
        readable(c);
}

/* One turn of the loop; how many descriptors were ready. */
static int turn(int timeout_ms) {
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, timeout_ms);
    for (int i = 0; i < ready; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) /* the standard input */
            stopping = true;
        else if (c->phase == CONNECTING)
            connected(c);
        else if (events[i].events & ~(uint32_t)EPOLLOUT)
            readable(c);
        else
            flush_output(c);
    }
    return ready;
}

/* --------------------------------------------------------------- the phases of a run */

static void open_all(void) {
    uint64_t deadline = (now = clock_now()) + nanoseconds(set.timeout);
    int next = 0;
    while (open_count < set.connections) {
        while (next < set.connections && opening < MAX_OPENING)
            start_connection(&connections[next++]);
        turn(10);
        if ((now = clock_now()) > deadline)
            fail("only %d of %d connections were opened", open_count, set.connections);
    }
}

static void send_first(int each) {
    now = clock_now();
    for (int i = 0; i < set.connections; i++) {
        for (int j = 0; j < each; j++)
            queue_message(&connections[i]);
        flush_output(&connections[i]);
    }
}

static void start_traffic(void) {
    if (set.mode == CHURN) {
        now = clock_now();
        for (int i = 0; i < set.connections; i++)
            start_connection(&connections[i]);
    } else if (set.mode == ECHO) {
        send_first(set.window);
    } else if (set.rate) {
        due = clock_now();
    } else if (set.publish) {
        for (int i = 0; i < set.window; i++)
            queue_message(&connections[0]);
        flush_output(&connections[0]);
    }
}

/* Milliseconds to sleep: none while anything is expected. With --rate the generator wakes a
 * moment before its next message is due: it is less in the way of others, and gets its turn. */
static int rest_ms(void) {
    const uint64_t ms = 1000000;
    if (!set.spin)
        return 10;
    return due > now + 2 * ms && !connections[0].in_flight ? (int)((due - now) / ms) - 1 : 0;
}

/* Spin until the time is up or enough was counted; the time for which there was nothing to do. */
static uint64_t spin_until(uint64_t end, uint64_t enough) {
    uint64_t idle = 0, last = now = clock_now(), progress = total, progress_at = now;
    while (last < end && (!enough || counted < enough)) {
        int ready = turn(rest_ms());
        now = clock_now();
        if (!ready)
            idle += now - last;
        if (due)
            publish_due(&connections[0]);
        if (total != progress) {
            progress = total;
            progress_at = now;
        } else if (now - progress_at > nanoseconds(set.timeout)) {
            fail("nothing arrived for %g seconds", set.timeout);
        }
        last = now;
    }
    return idle;
}

static int still_busy(void) {
    int busy = 0;
    for (int i = 0; i < set.connections; i++)
        busy += connections[i].phase == OPEN && connections[i].in_flight;
    return busy;
}

/* Leave as a good client does, so that the server's next run starts clean. */
static void finish(void) {
    uint64_t deadline = clock_now() + nanoseconds(2);
    stopping = true;
    while (set.mode == ECHO && still_busy() && clock_now() < deadline)
        turn(10);
    for (int i = 0; i < set.connections; i++) {
        struct connection *c = &connections[i];
        if (c->phase == OPEN && c->sent == c->queued)
            start_closing(c);
    }
    while (ended_count < set.connections && set.mode != CHURN && clock_now() < deadline)
        turn(10);
}

static void measure(void) {
    if (set.mode != CHURN)
        open_all();
    if (set.publish) /* a server may answer a handshake before it counts a receiver in */
        spin_until(clock_now() + nanoseconds(REGISTER_SECONDS), 0);
    start_traffic();
    spin_until(clock_now() + nanoseconds(set.warmup), 0);
    uint64_t cpu = cpu_of(&set.server), broker = cpu_of(&set.broker), started = clock_now();
    measuring = true;
    uint64_t idle = spin_until(started + nanoseconds(set.seconds), set.messages);
    measuring = false;
    cpu = cpu_of(&set.server) - cpu;
    broker = cpu_of(&set.broker) - broker;
    double seconds = (double)(clock_now() - started) / 1e9;
    int starved = 0;
    for (int i = is_poster(connections); i < set.connections; i++)
        starved += !connections[i].received;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"size\": %zu, \"window\": %d, "
           "\"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"cpu_seconds\": %.6f, "
           "\"broker_seconds\": %.6f, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"starved\": %d, "
           "\"generator_idle\": %.4f}\n",
           MODES[set.mode], set.connections, set.size, set.window, (unsigned long long)counted,
           seconds, (double)counted / seconds, (double)cpu / 1e9, (double)broker / 1e9,
           quantile_us(0.5), quantile_us(0.99), (double)longest / 1000, starved,
           (double)idle / 1e9 / seconds);
    fflush(stdout);
    finish();
}

static void hold(void) {
    open_all();
    send_first(1);
    uint64_t deadline = clock_now() + nanoseconds(set.timeout);
    while (still_busy()) {
        turn(10);
        if (clock_now() > deadline)
            fail("%d of %d connections were never answered", still_busy(), set.connections);
    }
    printf("{\"mode\": \"idle\", \"connections\": %d}\n", open_count);
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event))
        stopping = true; /* a file or /dev/null: nobody can tell us to go on */
    while (!stopping)
        turn(-1);
    epoll_ctl(poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    finish();
}

/* ------------------------------------------------------------------- start */

static void add_processes(struct processes *to, char *list) {
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ","))
        if (to->count < MAX_PROCESSES)
            to->ids[to->count++] = (pid_t)atoi(word);
}

static enum mode mode_named(const char *name) {
    for (unsigned i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(name, MODES[i]))
            return (enum mode)i;
    fail("no such mode");
    return ECHO;
}

static void read_options(int count_of, char **values) {
    static const struct option OPTIONS[] = {
        {"mode", 1, 0, 'm'}, {"address", 1, 0, 'a'}, {"port", 1, 0, 'p'}, {"host", 1, 0, 'h'},
        {"path", 1, 0, 'u'}, {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'},
        {"window", 1, 0, 'w'}, {"seconds", 1, 0, 't'}, {"messages", 1, 0, 'n'},
        {"warmup", 1, 0, 'W'}, {"timeout", 1, 0, 'T'}, {"cpu", 1, 0, 'C'}, {"pids", 1, 0, 'P'},
        {"broker", 1, 0, 'k'}, {"rate", 1, 0, 'R'}, {"socketio", 0, 0, 'i'},
        {"raw", 0, 0, 'r'}, {"binary", 0, 0, 'b'}, {"publish", 0, 0, 'B'},
        {"events", 0, 0, 'e'}, {"tls", 0, 0, 'x'}, {"deflate", 1, 0, 'z'}, {"no-spin", 0, 0, 'S'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(count_of, values, "", OPTIONS, NULL)) != -1;) {
        switch (o) {
        case 'm': set.mode = mode_named(optarg); break;
        case 'a': set.address = optarg; break;
        case 'p': set.port = atoi(optarg); break;
        case 'h': set.host = optarg; break;
        case 'u': set.path = optarg; break;
        case 'c': set.connections = atoi(optarg); break;
        case 's': set.size = (size_t)atoll(optarg); break;
        case 'w': set.window = atoi(optarg); break;
        case 't': set.seconds = atof(optarg); break;
        case 'n': set.messages = (uint64_t)atoll(optarg); break;
        case 'W': set.warmup = atof(optarg); break;
        case 'T': set.timeout = atof(optarg); break;
        case 'C': set.cpu = atoi(optarg); break;
        case 'P': add_processes(&set.server, optarg); break;
        case 'k': add_processes(&set.broker, optarg); break;
        case 'R': set.rate = atof(optarg); break;
        case 'i': set.socketio = true; break;
        case 'r': set.raw = true; break;
        case 'b': set.binary = true; break;
        case 'B': set.publish = true; break;
        case 'e': set.events = true; break;
        case 'x': set.tls = true; break;
        case 'z': set.deflate = optarg; break;
        case 'S': set.spin = false; break;
        default: fail("an unknown option");
        }
    }
    if (set.rate)
        set.window = MAX_LATE;
    if (!set.port || set.connections < 1 || set.window < 1 || (set.raw && !set.size))
        fail("--port, and at least one connection, message in flight and byte, are needed");
}

static void prepare(void) {
    char *host;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (set.cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(set.cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    if (!set.host && asprintf(&host, "%s:%d", set.address, set.port) > 0)
        set.host = host;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)set.port)};
    if (inet_pton(AF_INET, set.address, &server.sin_addr) != 1)
        fail("--address must be an IPv4 address");
    poller = epoll_create1(0);
    input = malloc(READ_SIZE);
    connections = calloc((size_t)set.connections, sizeof *connections);
    for (int i = 0; i < set.connections; i++)
        connections[i].times = calloc((size_t)set.window, sizeof(uint64_t));
    prepare_messages();
    prepare_request();
    if (set.tls)
        prepare_tls();
}

int main(int argument_count, char **arguments) {
    read_options(argument_count, arguments);
    prepare();
    if (set.mode == IDLE)
        hold();
    else
        measure();
    return 0;
}
