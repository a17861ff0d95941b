/* The load generator: many WebSocket clients in one thread, on epoll.
 *
 * It is written in C because a load generator in Python would be slower than most of the servers
 * and would measure itself. It still reports how much of a core it used, so that a reader can see
 * when a result was limited by the generator.
 *
 *     load PORT SERVER_PID SCENARIO CLIENTS BYTES WINDOW WARM SECONDS
 *
 * connects CLIENTS clients, runs one scenario for WARM seconds without counting and for SECONDS
 * seconds with counting, and prints one line of JSON. The scenarios:
 *
 *     fan-out     the first client sends chat messages; at most WINDOW of them have not yet
 *                 reached every client
 *     echo        every client has WINDOW messages of BYTES bytes in flight
 *     handshakes  CLIENTS connections at a time: connect, upgrade, close, and again
 *     listen      the clients are connected, and get what clients of another server say
 *     idle        the clients are connected and silent
 *
 * Every frame of every client is parsed, so a lost message stalls the run and is reported. The
 * contents are compared in the echo alone. Deliberate simplifications: the masking key and the
 * Sec-WebSocket-Key are constants (the RFC's example key, whose answer is known without SHA-1),
 * and UTF-8 is not checked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

enum {
    RECEIVE_BYTES = 128 << 10, /* fits the second-level cache together with the clients */
    RING_BYTES = 32 << 10,     /* identical frames back to back, so that one send carries many */
    EVENTS = 1024,             /* taken from epoll at once */
    MAX_WINDOW = 1024,
    SETTLE_TRIES = 20,
    SOURCE_ADDRESSES = 16,
};

static const double JOIN_SECONDS = 60.0;   /* for all clients together */
static const double SETTLE_SECONDS = 0.5;  /* for one message to reach everyone */
static const double STALL_SECONDS = 4.0;   /* without any message though some are in flight */

enum scenario { FAN_OUT, ECHO, HANDSHAKES, LISTEN, IDLE, SCENARIOS };
static const char *const NAMES[SCENARIOS] = {"fan-out", "echo", "handshakes", "listen", "idle"};
static const char *const PATHS[SCENARIOS] = {"/ws", "/echo", "/echo", "/ws", "/ws"};

enum opcode { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum state { UNUSED, CONNECTING, UPGRADING, OPEN, CLOSING };

struct client {
    int fd;
    enum state state;
    bool wants_out;          /* epoll reports when the socket can be written */
    unsigned char head[10];  /* the frame header that is being received */
    unsigned head_have;
    bool in_payload;
    bool final;
    unsigned char opcode;
    uint64_t payload_left;
    size_t message_have;     /* payload bytes of this message so far */
    unsigned char control[125];
    unsigned control_have;
    uint64_t messages;       /* received since the scenario began */
    uint64_t out;            /* bytes of the ring that are still to be sent */
    size_t ring_at;          /* where in the ring they begin */
};

struct snapshot {
    double time;
    double cpu; /* seconds that this process has used */
    uint64_t deliveries;
};

static enum scenario scenario;
static int epoll;
static int port;
static int server_pid;
static struct client *clients;
static int client_count;
static char request[512];
static unsigned char received[RECEIVE_BYTES];

static const char *fault; /* the first thing that went wrong; it ends the run */
static double now;
static double last_delivery;
static uint64_t deliveries; /* messages received by all clients together, or handshakes */

static uint64_t window;
static uint64_t issued;               /* FAN_OUT: messages sent */
static uint64_t completed;            /* FAN_OUT: messages that reached every client */
static int reached[MAX_WINDOW];       /* FAN_OUT: clients that have message number i % window */

static unsigned char *payload;
static size_t payload_bytes;
static unsigned char *ring;
static size_t ring_frames;
static size_t frame_bytes;

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct snapshot snapshot(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    return (struct snapshot){clock_now(), cpu, deliveries};
}

/* The server's resident memory. */
static long server_kib(void)
{
    char line[256];
    long kib = 0;
    snprintf(line, sizeof line, "/proc/%d/status", server_pid);
    FILE *file = fopen(line, "r");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "VmRSS: %ld", &kib);
    if (file)
        fclose(file);
    return kib;
}

static void note_fault(const char *what)
{
    if (!fault)
        fault = what;
}

static void give_up(const char *what)
{
    printf("{\"fault\": \"load generator: %s: %s\"}\n", what, strerror(errno));
    exit(1);
}

/* ---- sending ---- */

/* Builds one masked frame, as a client sends it (RFC 6455, section 5.2); returns its length. */
static size_t build_frame(unsigned char *to, enum opcode opcode, const unsigned char *from,
                          size_t n)
{
    static const unsigned char key[4] = {0x5a, 0xc3, 0x17, 0x8e};
    size_t at = 2;
    int length_bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;
    to[0] = 0x80 | opcode;
    to[1] = 0x80 | (length_bytes == 0 ? (unsigned char)n : length_bytes == 2 ? 126 : 127);
    for (int i = length_bytes - 1; i >= 0; i--)
        to[at++] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(to + at, key, sizeof key);
    at += sizeof key;
    for (size_t i = 0; i < n; i++)
        to[at + i] = from[i] ^ key[i & 3];
    return at + n;
}

/* Makes the one message that all clients send, and the ring of its frames. */
static void build_ring(size_t bytes)
{
    static const char before[] =
        "{\"email\":\"bench@example.org\",\"username\":\"bench\",\"message\":\"";
    bool is_chat = scenario == FAN_OUT || scenario >= LISTEN;
    if (is_chat && bytes < sizeof before + 1) {
        fprintf(stderr, "a message of the chat has at least %zu bytes\n", sizeof before + 1);
        exit(2);
    }
    payload_bytes = bytes;
    payload = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        payload[i] = (unsigned char)('a' + (i * 7 + i / 251) % 26);
    if (is_chat) {
        memcpy(payload, before, sizeof before - 1);
        memcpy(payload + bytes - 2, "\"}", 2);
    }
    ring_frames = bytes + 14 < RING_BYTES ? RING_BYTES / (bytes + 14) : 1;
    ring = malloc(ring_frames * (bytes + 14));
    size_t at = 0;
    for (size_t i = 0; i < ring_frames; i++)
        at += build_frame(ring + at, bytes < 1000 ? TEXT : BINARY, payload, bytes);
    frame_bytes = at / ring_frames;
}

static void watch(struct client *c, bool out)
{
    if (c->wants_out == out)
        return;
    c->wants_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0),
                            .data.u32 = (uint32_t)(c - clients)};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* Sends what the client still has to send, as far as the socket takes it. */
static void flush(struct client *c)
{
    while (c->out > 0) {
        size_t ready = ring_frames * frame_bytes - c->ring_at;
        size_t part = c->out < ready ? (size_t)c->out : ready;
        ssize_t n = send(c->fd, ring + c->ring_at, part, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        c->out -= (uint64_t)n;
        c->ring_at = (c->ring_at + (size_t)n) % frame_bytes;
    }
    watch(c, c->out > 0);
}

/* Control frames are short and rare. One is left out while a frame is half sent or the socket is
 * full: a run is shorter than the time after which servers miss a Pong. */
static void send_control(struct client *c, enum opcode opcode, const unsigned char *from, size_t n)
{
    unsigned char frame[140];
    size_t length = build_frame(frame, opcode, from, n);
    if (c->out == 0)
        (void)!send(c->fd, frame, length, MSG_NOSIGNAL);
}

/* ---- receiving ---- */

static void end_of_message(struct client *c)
{
    deliveries++;
    last_delivery = now;
    if (scenario == ECHO) {
        if (c->message_have != payload_bytes)
            note_fault("an echo of another length than was sent");
        c->out += frame_bytes;
        return;
    }
    if (scenario == LISTEN)
        return;
    uint64_t number = c->messages++;
    if (number >= issued)
        note_fault("more messages arrived than were sent");
    else if (++reached[number % window] == client_count) {
        reached[number % window] = 0;
        completed++;
    }
}

static void end_of_frame(struct client *c)
{
    c->in_payload = false;
    c->head_have = 0;
    if (c->opcode == PING) {
        send_control(c, PONG, c->control, c->control_have);
    } else if (c->opcode == CLOSE) {
        note_fault("the server closed connections");
    } else if (c->opcode <= BINARY && c->final) {
        end_of_message(c);
        c->message_have = 0;
    }
}

static void take_payload(struct client *c, const unsigned char *p, size_t n)
{
    if (c->opcode >= CLOSE) {
        memcpy(c->control + c->control_have, p, n);
        c->control_have += (unsigned)n;
        return;
    }
    if (scenario == ECHO && (c->message_have + n > payload_bytes ||
                             memcmp(p, payload + c->message_have, n) != 0))
        note_fault("an echo of other bytes than were sent");
    c->message_have += n;
}

/* Takes what belongs to a frame's header; in_payload says that the header is complete. */
static size_t take_head(struct client *c, const unsigned char *p, size_t n)
{
    size_t used = 0;
    for (;;) {
        unsigned length = c->head_have < 2 ? 0 : c->head[1] & 127;
        unsigned need = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (c->head_have == need)
            break;
        if (used == n)
            return used;
        c->head[c->head_have++] = p[used++];
    }
    c->payload_left = c->head[1] & 127;
    if (c->head_have > 2)
        c->payload_left = 0;
    for (unsigned i = 2; i < c->head_have; i++)
        c->payload_left = c->payload_left << 8 | c->head[i];
    c->opcode = c->head[0] & 15;
    c->final = c->head[0] & 0x80;
    bool control = c->opcode >= CLOSE && c->opcode <= PONG && c->payload_left <= 125;
    if ((c->head[0] & 0x70) || (c->head[1] & 0x80) || (c->opcode > BINARY && !control))
        note_fault("bytes that are not a frame of a server");
    c->in_payload = true;
    c->control_have = 0;
    return used;
}

static void take(struct client *c, const unsigned char *p, size_t n)
{
    while (n > 0 && !fault) {
        if (!c->in_payload) {
            size_t used = take_head(c, p, n);
            p += used;
            n -= used;
            if (!c->in_payload || fault)
                return;
        }
        size_t part = c->payload_left < n ? (size_t)c->payload_left : n;
        take_payload(c, p, part);
        p += part;
        n -= part;
        c->payload_left -= part;
        if (c->payload_left == 0)
            end_of_frame(c);
    }
}

/* ---- connections ---- */

/* The clients connect from several loopback addresses, each of which has its own port numbers:
 * connections that the kernel still remembers (TIME_WAIT) do not use them up. */
static void open_client(struct client *c)
{
    static unsigned turn;
    int yes = 1;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr =
                                   htonl(INADDR_LOOPBACK + turn++ % SOURCE_ADDRESSES)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        give_up("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0)
        give_up("bind");
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        give_up("connect");
    c->state = CONNECTING;
    c->wants_out = true;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(c - clients)};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        give_up("epoll_ctl");
}

static void lose(struct client *c)
{
    close(c->fd);
    if (c->state == CLOSING) {
        deliveries++;
        last_delivery = now;
    } else {
        note_fault("the server closed connections");
    }
    c->state = UNUSED;
}

/* The response is only looked at until it is complete, then taken out of the socket; frames that
 * follow it stay there. */
static void read_response(struct client *c)
{
    static char response[2048];
    ssize_t n = recv(c->fd, response, sizeof response - 1, MSG_PEEK);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            lose(c);
        return;
    }
    response[n] = 0;
    char *end = strstr(response, "\r\n\r\n");
    if (!end)
        return;
    (void)!recv(c->fd, response, (size_t)(end + 4 - response), 0);
    if (strncmp(response, "HTTP/1.1 101", 12) != 0 ||
        !strstr(response, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        note_fault("the upgrade was refused");
    c->state = OPEN;
}

/* While a connection closes, what still arrives is thrown away. */
static void read_frames(struct client *c)
{
    ssize_t n = recv(c->fd, received, sizeof received, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        lose(c);
    } else if (n > 0 && c->state == OPEN) {
        now = clock_now();
        take(c, received, (size_t)n);
        if (c->out > 0)
            flush(c);
    }
}

static void on_event(struct client *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        c->state = UPGRADING;
        watch(c, false);
        if (send(c->fd, request, strlen(request), MSG_NOSIGNAL) < 0)
            lose(c);
        return;
    }
    if ((events & EPOLLOUT) && c->state == OPEN)
        flush(c);
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return;
    if (c->state == UPGRADING)
        read_response(c);
    else
        read_frames(c);
}

/* Waits for events, 100 ms at most, and handles them. */
static void turn(double until)
{
    static struct epoll_event events[EVENTS];
    double wait = (until - clock_now()) * 1000.0;
    int n = epoll_wait(epoll, events, EVENTS, wait < 0 ? 0 : wait > 100 ? 100 : (int)wait);
    now = clock_now();
    for (int i = 0; i < n && !fault; i++) {
        struct client *c = &clients[events[i].data.u32];
        if (c->state != UNUSED)
            on_event(c, events[i].events);
    }
}

/* ---- scenarios ---- */

/* The clients join one after another, because the shortest listen backlog of the servers is 5. */
static void join(int count)
{
    double until = clock_now() + JOIN_SECONDS;
    for (client_count = 0; client_count < count && !fault; client_count++) {
        struct client *c = &clients[client_count];
        open_client(c);
        while (c->state != OPEN && !fault) {
            turn(until);
            if (now > until)
                note_fault("the clients were not all let in within 60 s");
        }
    }
}

static void begin(uint64_t most_in_flight)
{
    window = most_in_flight;
    issued = completed = deliveries = 0;
    memset(reached, 0, sizeof reached);
    for (int i = 0; i < client_count; i++)
        clients[i].messages = 0;
    now = last_delivery = clock_now();
}

static void issue(struct client *c, uint64_t messages)
{
    issued += messages;
    c->out += messages * frame_bytes;
    flush(c);
}

/* A chat may answer the handshake before it counts the client in. So messages are sent, one at a
 * time, until one has reached everyone. */
static void settle(void)
{
    for (int tries = 0; tries < SETTLE_TRIES && !fault; tries++) {
        begin(1);
        issue(&clients[0], 1);
        while (!fault && completed == 0 && now - last_delivery < SETTLE_SECONDS)
            turn(last_delivery + SETTLE_SECONDS);
        if (completed > 0)
            return;
    }
    note_fault("no message reached everyone who had joined");
}

/* The window is filled when half of it is free: a sender that writes as fast as it can fills its
 * TCP segments. A window of one is filled when it is empty. */
static void fill_window(void)
{
    uint64_t in_flight = issued - completed;
    if (in_flight <= window / 2)
        issue(&clients[0], window - in_flight);
}

/* Opens the connections that are closed, and sends a Close on those that were let in. */
static void step_handshakes(void)
{
    for (int i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        if (c->state == UNUSED) {
            open_client(c);
        } else if (c->state == OPEN) {
            c->state = CLOSING;
            send_control(c, CLOSE, (const unsigned char *)"\x03\xe8", 2);
        }
    }
}

static void report(struct snapshot first, double kib_each, bool joined)
{
    struct snapshot last = snapshot();
    double seconds = last.time - first.time;
    double count = (double)(last.deliveries - first.deliveries);
    printf("{\"joined\": %s, ", joined ? "true" : "false");
    if (fault)
        printf("\"fault\": \"%s\", ", fault);
    printf("\"per_second\": %.1f, \"kib_each\": %.2f, \"generator_cores\": %.3f}\n",
           count / seconds, kib_each, (last.cpu - first.cpu) / seconds);
}

/* A run that breaks in its warm-up is measured from its beginning: the rate until then is better
 * than none, and the fault is reported with it. */
static struct snapshot run(double warm, double seconds)
{
    double warm_end = clock_now() + warm;
    double end = warm_end + seconds;
    bool warmed = false;
    struct snapshot first = snapshot();
    if (scenario == ECHO)
        for (int i = 0; i < client_count; i++)
            issue(&clients[i], window);
    while (!fault && now < end) {
        if (!warmed && now >= warm_end) {
            warmed = true;
            first = snapshot();
        }
        if (scenario == FAN_OUT)
            fill_window();
        else if (scenario == HANDSHAKES)
            step_handshakes();
        turn(warmed ? end : warm_end);
        if (scenario < LISTEN && now - last_delivery > STALL_SECONDS)
            note_fault("stalled: nothing arrived for 4 s");
    }
    return first;
}

static void build_request(void)
{
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n"
             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", PATHS[scenario], port, port);
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "usage: load PORT SERVER_PID SCENARIO CLIENTS BYTES WINDOW WARM SECONDS\n");
        return 2;
    }
    port = atoi(argv[1]);
    server_pid = atoi(argv[2]);
    while (scenario < IDLE && strcmp(argv[3], NAMES[scenario]) != 0)
        scenario++;
    int count = atoi(argv[4]);
    uint64_t most_in_flight = strtoull(argv[6], NULL, 10);
    if (most_in_flight < 1 || most_in_flight > MAX_WINDOW) {
        fprintf(stderr, "load: WINDOW must be from 1 to %d\n", MAX_WINDOW);
        return 2;
    }
    clients = calloc((size_t)count, sizeof *clients);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    build_request();
    build_ring(strtoul(argv[5], NULL, 10));
    long kib_before = server_kib();
    if (scenario == HANDSHAKES)
        client_count = count;
    else
        join(count);
    if (scenario == FAN_OUT || scenario == IDLE)
        settle();
    bool joined = !fault;
    begin(most_in_flight);
    struct snapshot first = run(atof(argv[7]), atof(argv[8]));
    report(first, (double)(server_kib() - kib_before) / count, joined);
    return 0;
}
