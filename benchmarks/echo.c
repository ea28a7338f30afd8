/*
 * echo: the cheapest echo server there is, in C with epoll, to show what the kernel alone costs.
 * With "broadcast" it sends what arrives to all connections.
 *
 *     cc -O2 -o echo echo.c && ./echo 8000 [broadcast]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536, MAX_CONNECTIONS = 65536 };

struct connection {
    int fd;
    char *rest;      /* what the kernel did not take; while there is some, nothing is read */
    size_t length;
};

static int poller, broadcasts, connected;
static struct connection *all[MAX_CONNECTIONS];
static char buffer[CHUNK];

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void drop(struct connection *c) {
    for (int i = 0; i < connected; i++)
        if (all[i] == c)
            all[i--] = all[--connected];
    close(c->fd);
    free(c->rest);
    free(c);
}

static int accept_one(int listener) {
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    if (broadcasts && connected < MAX_CONNECTIONS)
        all[connected++] = c;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    return 1;
}

static void keep(struct connection *c, const char *data, size_t length) {
    c->rest = realloc(c->rest, c->length + length);
    memcpy(c->rest + c->length, data, length);
    c->length += length;
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

static void answer(struct connection *c, size_t length) {
    ssize_t sent = c->length ? 0 : send(c->fd, buffer, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(c);
        return;
    }
    size_t taken = sent < 0 ? 0 : (size_t)sent;
    if (taken < length)
        keep(c, buffer + taken, length - taken);
}

static void readable(struct connection *c) {
    ssize_t length = recv(c->fd, buffer, CHUNK, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        drop(c);
        return;
    }
    if (!broadcasts)
        answer(c, (size_t)length);
    for (int i = connected - 1; i >= 0; i--)
        answer(all[i], (size_t)length);
}

static void writable(struct connection *c) {
    ssize_t sent = send(c->fd, c->rest, c->length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return;
    if (sent < 0) {
        drop(c);
        return;
    }
    c->length -= (size_t)sent;
    memmove(c->rest, c->rest + sent, c->length);
    if (c->length)
        return;
    free(c->rest);
    c->rest = NULL;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static int listen_on(int port) {
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 2048)) {
        perror("listen");
        exit(1);
    }
    return fd;
}

int main(int count, char **arguments) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    broadcasts = count > 2 && !strcmp(arguments[2], "broadcast");
    int listener = listen_on(count > 1 ? atoi(arguments[1]) : 8000);
    poller = epoll_create1(0);
    struct epoll_event events[256], first = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        /* All that have connected are there before what the first of them sends. */
        while (broadcasts && accept_one(listener))
            ;
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                accept_one(listener);
            else if (events[i].events & EPOLLOUT)
                writable(c);
            else
                readable(c);
        }
    }
}
