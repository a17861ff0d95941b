/* The load generator: many WebSocket clients in one thread, on epoll.
 *
 * In C so that it is not what is measured: a server that delivers ten million messages a second
 * needs a receiver that spends some nanoseconds on each. Every frame header of every client is
 * read, so that a message lost, doubled or cut shows; the contents are compared on one client out
 * of all (in the echo: on all). Only from a server so fast that this reading would cost as much
 * as its sending (see skim_frames), the other clients' bytes are counted and not looked at while
 * it is measured. It says its own CPU seconds beside the server's.
 *
 * It measures and does not judge: masking keys are not random, the Sec-WebSocket-Key is always
 * the RFC's example (so that the answer is known without SHA-1), UTF-8 is not looked at.
 *
 *     load PORT PATH SERVER_PID [opaque]
 *
 * then one command a line on standard input, and one line of JSON for each on standard output:
 *
 *     connect N AT_ONCE             open clients until there are N
 *     settle                        wait until the chat has let all of them in
 *     one WARM SECONDS              a message, wait until all clients have it, the next
 *     load SENDERS WARM SECONDS     as many messages as the server takes, a window outstanding
 *     fill COUNT BYTES              so many messages of that size, at once, unmeasured
 *     rate PER_SECOND WARM SECONDS  one sender that keeps to a schedule
 *     echo BYTES DEPTH WARM SECONDS every client keeps DEPTH messages in flight
 *     handshakes AT_ONCE WARM SECONDS   connect, upgrade, close, and again
 *     idle SECONDS                  only answer pings
 *     stuck | stuck?                one more client, which never reads | what became of it
 *     quit                          a Close frame from every client; ends
 *
 * It ends with its standard input, so it cannot outlive the program that started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
    RECEIVE_BYTES = 128 << 10, /* fits the second-level cache together with the clients */
    EVENTS = 1024,
    MESSAGE_BYTES = 100,       /* the JSON that a sender sends */
    MESSAGE_MOST = 4000,
    WINDOW_LEAST = 32,         /* messages outstanding under load; see adapt_window() */
    WINDOW_MOST = 512,
    RING_BYTES = 32 << 10,     /* echo: identical frames back to back, for few system calls */
    SAMPLES = 4 << 20,
    MESSAGES_MOST = 8 << 20,   /* in one phase under load */
    SKIM_BYTES = 8 << 20,
    SENDERS_MOST = 50,
};

static const double CONNECT_SECONDS = 60.0;
static const double SETTLE_SECONDS = 10.0;
static const double STALL_SECONDS = 4.0;  /* nothing arrives though something is outstanding */
static const double DRAIN_SECONDS = 20.0; /* the slowest peers need ten for the least window */
static const double WINDOW_SECONDS = 0.25;
static const double SKIM_FROM = 2e6;      /* deliveries a second */
static const double SCAN_SECONDS = 1e-4;

#define BEFORE_TEXT "{\"email\":\"bench@example.org\",\"username\":\"bench\",\"message\":\""
#define NUMBER "00:00000000" /* of a text: its sender, and which of that sender's it is */
#define FILLER " the quick brown fox jumped."
static const unsigned char MASK[4] = {0x5a, 0xc3, 0x17, 0x8e};

enum state { FREE, CONNECTING, UPGRADING, OPEN, CLOSING };
enum mode { QUIET, ONE, LOAD, RATE, ECHO, HANDSHAKES };

struct client {
    int fd;
    enum state state;
    double since;            /* when its connecting began */
    bool in_frame, final;
    unsigned char opcode;
    uint64_t left;           /* payload bytes of this frame still to come */
    size_t at;               /* payload bytes of this message so far */
    unsigned char head[10];
    unsigned head_have;
    unsigned char control[125];
    unsigned control_have;
    uint64_t out;            /* echo: bytes of frames still to be sent */
    size_t phase;            /* echo: how far within a frame the sending is */
    bool wants_out;
};

struct sender {
    unsigned char *buffer;
    size_t have, sent, room;
    uint64_t next_issued, next_seen;
};

struct snapshot {
    double at, own_cpu, server_cpu;
    uint64_t deliveries;
};

struct phase {
    double warm_end, end;
    bool warm; /* it is over, and first is when that was */
    struct snapshot first, last;
};

static int epoll, port, server_pid;
static const char *path;
static bool opaque; /* the peer sends frames of the right form whose contents are made up */

static struct client *clients;
static uint32_t *got; /* messages each client has received in this phase; dense, it is scanned */
static uint64_t *taken;  /* bytes each client has received in this phase */
static uint64_t *ends;   /* LOAD: how many bytes the sampled client had at each message's end */
static uint64_t sampled; /* bytes of the sampled client that were looked at */
static bool skim;
static int client_count, client_room, open_count, closed_count;
static unsigned char received[RECEIVE_BYTES];
static char request[512];
static char answer[2048]; /* the opening handshakes are short: one buffer, see read_answer() */

static enum mode mode;
static double now;
static double last_delivery;
static uint64_t deliveries, issued, pings;
static const char *fault;

static unsigned char message[MESSAGE_MOST];
static size_t message_bytes;
static struct sender senders[SENDERS_MOST];
static int sender_count, sender_turn;
static uint64_t window, completed_before;
static double pace_of_one; /* messages a second, one in flight */
static double window_since;
static unsigned char sample[4096]; /* the sampled client's message as it is assembled */

static int pending; /* ONE: clients that have not got the message yet */
static double issued_at, schedule_begin, schedule_step;
static double *samples, *message_times;
static size_t sample_count, message_time_count;

static unsigned char *echo_ring, *echo_payload;
static size_t echo_frame, echo_ring_frames, echo_bytes;
static bool echo_whole; /* compare every byte, not only each piece's beginning */
static bool echo_again; /* answer each message with the next */

static int stuck_fd = -1, stuck_port;

/* ---- time and cost ---- */

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double own_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static size_t read_proc(const char *name, char *text, size_t room)
{
    char file[64];
    snprintf(file, sizeof file, "/proc/%d/%s", server_pid, name);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static double server_cpu(void)
{
    char text[1024];
    unsigned long user = 0, system = 0;
    read_proc("stat", text, sizeof text);
    char *rest = strrchr(text, ')'); /* the name before it may hold blanks */
    if (rest)
        sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static long server_status(const char *key)
{
    char text[4096];
    read_proc("status", text, sizeof text);
    char *line = strstr(text, key);
    return line ? atol(line + strlen(key)) : 0;
}

/* Skimmed clients have a message when they have as many bytes as the sampled one at its end. */
static void catch_up(void)
{
    for (int i = 1; skim && i < client_count; i++)
        while (got[i] < got[0] && ends[got[i]] <= taken[i]) {
            got[i]++;
            deliveries++;
        }
}

static struct snapshot snapshot(void)
{
    catch_up();
    return (struct snapshot){clock_now(), own_cpu(), server_cpu(), deliveries};
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

static void add_sample(double seconds)
{
    if (sample_count < SAMPLES)
        samples[sample_count++] = seconds;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double *values, size_t count, double part)
{
    return count ? values[(size_t)(part * (double)(count - 1))] : 0.0;
}

/* ---- what is sent ---- */

/* One masked frame around a payload, as a client sends it; returns its length. */
static size_t build_frame(unsigned char *to, unsigned char opcode, const void *payload, size_t n)
{
    size_t at = 2;
    to[0] = 0x80 | opcode;
    if (n < 126) {
        to[1] = 0x80 | (unsigned char)n;
    } else if (n < 65536) {
        to[1] = 0x80 | 126;
        to[2] = (unsigned char)(n >> 8);
        to[3] = (unsigned char)n;
        at = 4;
    } else {
        to[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++)
            to[2 + i] = (unsigned char)((uint64_t)n >> (56 - 8 * i));
        at = 10;
    }
    memcpy(to + at, MASK, 4);
    at += 4;
    for (size_t i = 0; i < n; i++)
        to[at + i] = ((const unsigned char *)payload)[i] ^ MASK[i & 3];
    return at + n;
}

static void watch(struct client *c, bool out)
{
    if (c->wants_out == out)
        return;
    c->wants_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.u32 = c - clients};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* Control frames are short and rare; a socket that is full has other troubles. */
static void send_control(struct client *c, unsigned char opcode, const void *payload, size_t n)
{
    unsigned char frame[140];
    size_t length = build_frame(frame, opcode, payload, n);
    if (c->out == 0)
        (void)!send(c->fd, frame, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush_sender(int i)
{
    struct sender *s = &senders[i];
    struct client *c = &clients[i];
    if (s->sent < s->have && c->state == OPEN) {
        ssize_t n = send(c->fd, s->buffer + s->sent, s->have - s->sent, MSG_NOSIGNAL);
        if (n > 0)
            s->sent += (size_t)n;
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            note_fault("a sender's connection broke");
    }
    if (s->sent == s->have)
        s->sent = s->have = 0;
    watch(c, s->have > 0);
}

/* {"email":"bench@example.org","username":"bench","message":"SS:NNNNNNNN the quick ... "} */
static void begin_messages(int bytes)
{
    size_t begun = sizeof BEFORE_TEXT - 1 + sizeof NUMBER - 1 + sizeof FILLER - 1;
    message_bytes = (size_t)bytes;
    memset(message, '.', message_bytes);
    memcpy(message, BEFORE_TEXT NUMBER FILLER, begun);
    memcpy(message + message_bytes - 2, "\"}", 2);
}

/* The text begins with its sender and number, which the sampled client checks. */
static void issue(int i)
{
    struct sender *s = &senders[i];
    unsigned char *number = message + sizeof BEFORE_TEXT - 1;
    uint64_t rest = s->next_issued++;
    number[0] = (unsigned char)('0' + i / 10);
    number[1] = (unsigned char)('0' + i % 10);
    for (int place = sizeof NUMBER - 2; place >= 3; place--, rest /= 10)
        number[place] = (unsigned char)('0' + rest % 10);
    if (s->room - s->have < sizeof message + 16) {
        s->room = 2 * s->room + 2 * sizeof message;
        s->buffer = realloc(s->buffer, s->room);
    }
    s->have += build_frame(s->buffer + s->have, 1, message, message_bytes);
    issued++;
}

static void flush_echo(struct client *c)
{
    while (c->out > 0) {
        size_t ready = echo_ring_frames * echo_frame - c->phase;
        size_t part = c->out < ready ? (size_t)c->out : ready;
        ssize_t n = send(c->fd, echo_ring + c->phase, part, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        c->out -= (uint64_t)n;
        c->phase = (c->phase + (size_t)n) % echo_frame;
    }
    watch(c, c->out > 0);
}

/* ---- what is received ---- */

static void check_sample(size_t n)
{
    const char *text = memmem(sample, n, "\"message\"", 9);
    if (opaque)
        return;
    if (!text || !memmem(sample, n, "bench@example.org", 17)) {
        note_fault("a message without the fields that were sent");
        return;
    }
    text += 9;
    while (*text == ':' || *text == ' ')
        text++;
    char *end;
    long i = strtol(text + 1, &end, 10);
    if (*text != '"' || i < 0 || i >= sender_count || *end != ':') {
        note_fault("a message with another text than was sent");
        return;
    }
    unsigned long long number = strtoull(end + 1, &end, 10);
    if (number != senders[i].next_seen++)
        note_fault("a sender's messages were lost, doubled or put in another order");
    if (strncmp(end, FILLER, sizeof FILLER - 1) != 0)
        note_fault("a message with another text than was sent");
}

static void end_of_message(struct client *c)
{
    int i = (int)(c - clients);
    deliveries++;
    last_delivery = now;
    got[i]++;
    if (mode == ECHO) {
        if (c->at != echo_bytes)
            note_fault("an echo of another length than was sent");
        if (issued_at > 0 && i == 0) { /* one message in flight: its round trip */
            add_sample(now - issued_at);
            issued_at = now;
        }
        if (echo_again) {
            c->out += echo_frame;
            issued++;
        }
        return;
    }
    if (i == 0 && mode == LOAD) {
        ends[got[0] - 1] = sampled;
        if (got[0] == MESSAGES_MOST)
            note_fault("more messages in a phase than the load generator has room for");
    }
    if (i == 0)
        check_sample(c->at < sizeof sample - 1 ? c->at : sizeof sample - 1);
    if (got[i] > issued) {
        note_fault("more messages than were sent");
    } else if (mode == ONE) {
        add_sample(now - issued_at);
        if (--pending == 0)
            message_times[message_time_count++ % SAMPLES] = now - issued_at;
    } else if (mode == RATE) {
        add_sample(now - (schedule_begin + schedule_step * (double)(got[i] - 1)));
    }
}

static void lose(struct client *c)
{
    if (mode == HANDSHAKES && c->state != CLOSING)
        note_fault("the server closed a connection instead of upgrading it");
    close(c->fd);
    c->state = FREE;
    open_count--;
    closed_count++;
}

static void end_of_frame(struct client *c)
{
    if (c->opcode < 8) {
        if (c->final) {
            end_of_message(c);
            c->at = 0;
        }
    } else if (c->opcode == 9) {
        pings++;
        send_control(c, 10, c->control, c->control_have);
    } else if (c->opcode == 8) {
        if (c->state == OPEN)
            send_control(c, 8, c->control, c->control_have < 2 ? 0 : 2);
        c->state = CLOSING;
    }
}

static void take_payload(struct client *c, const unsigned char *p, size_t n)
{
    if (c->opcode >= 8) {
        memcpy(c->control + c->control_have, p, n);
        c->control_have += (unsigned)n;
        return;
    }
    if (mode == ECHO) {
        size_t looked_at = echo_whole || n < 64 ? n : 64;
        if (c->at + n > echo_bytes || memcmp(p, echo_payload + c->at, looked_at) != 0)
            note_fault("an echo of other bytes than were sent");
    } else if (c == clients && c->at + n < sizeof sample) {
        memcpy(sample + c->at, p, n);
        sample[c->at + n] = 0;
    }
    c->at += n;
}

/* Takes what it needs of a frame's header; in_frame says that it is whole. */
static size_t take_head(struct client *c, const unsigned char *p, size_t n)
{
    size_t used = 0;
    for (;;) {
        unsigned length = c->head_have < 2 ? 0 : c->head[1] & 127;
        unsigned need = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (c->head_have >= 2 && c->head_have == need)
            break;
        if (used == n)
            return used;
        c->head[c->head_have++] = p[used++];
    }
    uint64_t length = c->head[1] & 127;
    if (c->head_have > 2) {
        length = 0;
        for (unsigned i = 2; i < c->head_have; i++)
            length = length << 8 | c->head[i];
    }
    c->opcode = c->head[0] & 15;
    c->final = c->head[0] & 0x80;
    bool known = c->opcode <= 2 || (c->opcode >= 8 && c->opcode <= 10 && length <= 125);
    if ((c->head[0] & 0x70) || (c->head[1] & 0x80) || !known)
        note_fault("bytes that are no frame of a server");
    c->left = length;
    c->in_frame = true;
    c->head_have = 0;
    c->control_have = 0;
    return used;
}

/* After a Close frame, whoever sent it, nothing is looked at any more: some servers' HTTP part
 * still answers then. */
static void walk(struct client *c, const unsigned char *p, size_t n)
{
    while (n > 0 && !fault && c->state == OPEN) {
        if (!c->in_frame) {
            size_t used = take_head(c, p, n);
            sampled += c == clients ? used : 0;
            p += used;
            n -= used;
            if (!c->in_frame || fault)
                return;
        }
        size_t part = c->left < n ? (size_t)c->left : n;
        sampled += c == clients ? part : 0;
        if (part)
            take_payload(c, p, part);
        p += part;
        n -= part;
        c->left -= part;
        if (c->left == 0) {
            c->in_frame = false;
            end_of_frame(c);
        }
    }
}

/* ---- connections ---- */

/* Every loopback address has its own ephemeral ports: closed connections that the kernel still
 * remembers (TIME_WAIT) never leave a run without any. */
static void open_client(int i)
{
    struct client *c = &clients[i];
    int yes = 1;
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        give_up("no socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    static unsigned turn;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + turn++ % 16)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0)
        give_up("bind");
    c->state = CONNECTING;
    c->since = now;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        give_up("connect");
    c->wants_out = true;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)i};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        give_up("epoll_ctl");
    open_count++;
}

static bool good_answer(const char *text)
{
    return strncmp(text, "HTTP/1.1 101", 12) == 0 &&
           strstr(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") != NULL;
}

/* Peeked first, and taken only when it is whole: answers come in one piece or two. */
static void read_answer(struct client *c)
{
    ssize_t n = recv(c->fd, answer, sizeof answer - 1, MSG_PEEK);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            lose(c);
        return;
    }
    answer[n] = 0;
    char *end = strstr(answer, "\r\n\r\n");
    if (!end)
        return;
    (void)!recv(c->fd, answer, (size_t)(end + 4 - answer), 0);
    end[2] = 0;
    if (!good_answer(answer)) {
        note_fault("the upgrade was refused");
        return;
    }
    c->state = OPEN;
}

/* Copying every byte out of the kernel costs more than a fast server's sending, and takes memory
 * bandwidth from it; MSG_TRUNC throws the bytes away where they are. All clients of a chat get
 * the same bytes, so their number says which messages have come. */
static void skim_frames(struct client *c)
{
    ssize_t n = recv(c->fd, received, SKIM_BYTES, MSG_TRUNC);
    if (n > 0) {
        now = last_delivery = clock_now();
        taken[c - clients] += (uint64_t)n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        lose(c);
    }
}

static void read_frames(struct client *c)
{
    if (skim && c != clients) {
        skim_frames(c);
        return;
    }
    ssize_t n = recv(c->fd, received, sizeof received, 0);
    if (n > 0) {
        now = clock_now();
        taken[c - clients] += (uint64_t)n;
        walk(c, received, (size_t)n);
        if (mode == ECHO && c->out > 0)
            flush_echo(c);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        lose(c);
    }
}

static void on_event(struct client *c, uint32_t events)
{
    if (c->state == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        watch(c, false);
        c->state = UPGRADING;
        if (send(c->fd, request, strlen(request), MSG_NOSIGNAL) < 0)
            lose(c);
        return;
    }
    if ((events & EPOLLOUT) && c->state == OPEN) {
        if (mode == ECHO)
            flush_echo(c);
        else if (c - clients < sender_count)
            flush_sender((int)(c - clients));
    }
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return;
    if (c->state == UPGRADING)
        read_answer(c);
    else if (c->state == OPEN || c->state == CLOSING)
        read_frames(c);
}

static void turn(double until)
{
    static struct epoll_event events[EVENTS];
    double wait = (until - clock_now()) * 1000.0;
    int n = epoll_wait(epoll, events, EVENTS, wait < 0 ? 0 : wait > 100 ? 100 : (int)wait);
    now = clock_now();
    for (int i = 0; i < n && !fault; i++) {
        struct client *c = &clients[events[i].data.u32];
        if (c->state != FREE)
            on_event(c, events[i].events);
    }
}

/* ---- phases ---- */

static void begin(struct phase *p, enum mode m, double warm, double seconds)
{
    mode = m;
    memset(got, 0, (size_t)client_count * sizeof *got);
    memset(taken, 0, (size_t)client_count * sizeof *taken);
    sampled = issued = 0;
    deliveries = 0;
    sample_count = message_time_count = 0;
    closed_count = 0;
    now = clock_now();
    last_delivery = now;
    *p = (struct phase){.warm = warm == 0, .warm_end = now + warm, .end = now + warm + seconds};
    p->first = snapshot();
}

/* One turn of the loop; false when the phase is over. A phase that breaks in its warm-up is
 * measured from its beginning: some figure is better than none, and the fault is said. */
static bool go_on(struct phase *p, double until)
{
    turn(until < p->end ? until : p->end);
    if (!p->warm && now >= p->warm_end) {
        p->warm = true;
        p->first = snapshot();
        sample_count = message_time_count = 0;
    }
    if (closed_count > 0 && mode != HANDSHAKES)
        note_fault("the server closed connections");
    if (mode != QUIET && now - last_delivery > STALL_SECONDS)
        note_fault("stalled: nothing arrived for 4 s");
    if (!fault && now < p->end)
        return true;
    p->last = snapshot();
    return false;
}

/* After a skimmed phase all is delivered, so every stream must stand at the end of a frame. A ping
 * in it, or a byte lost, would show here. */
static void end_skimming(void)
{
    for (int i = 1; i < client_count; i++) {
        struct client *c = &clients[i];
        if (taken[i] != taken[0])
            note_fault("a client got another number of bytes than the one looked at");
        c->in_frame = false;
        c->head_have = 0;
        c->at = 0;
    }
    skim = false;
}

/* Every client has every message, or it is said how many are missing. */
static uint64_t drain(double seconds)
{
    double until = clock_now() + seconds;
    uint64_t missing;
    for (;;) {
        missing = 0;
        catch_up();
        for (int i = 0; i < client_count; i++)
            missing += got[i] < issued ? issued - got[i] : 0;
        if (missing == 0 || fault)
            break;
        if (closed_count > 0)
            note_fault("the server closed connections");
        else if (now - last_delivery > STALL_SECONDS)
            note_fault("stalled: messages are missing, and nothing arrived for 4 s");
        else if (now > until)
            note_fault("fell behind: messages had not arrived 20 s after the last was sent");
        turn(until < now + 0.05 ? until : now + 0.05);
    }
    if (!fault)
        turn(now + 0.02); /* one too many would be about to come */
    if (skim && !fault)
        end_skimming();
    mode = QUIET;
    return missing;
}

static void report(struct phase *p, uint64_t missing)
{
    double seconds = p->last.at - p->first.at;
    uint64_t count = p->last.deliveries - p->first.deliveries;
    qsort(samples, sample_count, sizeof *samples, by_size);
    size_t times = message_time_count < SAMPLES ? message_time_count : SAMPLES;
    qsort(message_times, times, sizeof *message_times, by_size);
    printf("{\"seconds\": %.4f, \"deliveries\": %llu, \"per_second\": %.1f, ", seconds,
           (unsigned long long)count, seconds > 0 ? (double)count / seconds : 0.0);
    printf("\"own_cpu\": %.4f, \"server_cpu\": %.4f, ", p->last.own_cpu - p->first.own_cpu,
           p->last.server_cpu - p->first.server_cpu);
    printf("\"p50\": %.7f, \"p99\": %.7f, \"max\": %.7f, ", percentile(samples, sample_count, 0.5),
           percentile(samples, sample_count, 0.99), percentile(samples, sample_count, 1.0));
    printf("\"message_p50\": %.7f, \"message_p99\": %.7f, ", percentile(message_times, times, 0.5),
           percentile(message_times, times, 0.99));
    printf("\"missing\": %llu, \"closed\": %d, \"window\": %llu, \"pings\": %llu, ",
           (unsigned long long)missing, closed_count, (unsigned long long)window,
           (unsigned long long)pings);
    printf("\"rss_kib\": %ld, \"threads\": %ld", server_status("VmRSS:"),
           server_status("Threads:"));
    if (fault)
        printf(", \"fault\": \"%s\"", fault);
    printf("}\n");
}

/* The numbers in the texts start anew with each phase, on both sides. */
static void begin_senders(int count, int bytes)
{
    begin_messages(bytes);
    sender_count = count < client_count ? count : client_count;
    sender_count = sender_count < SENDERS_MOST ? sender_count : SENDERS_MOST;
    for (int i = 0; i < sender_count; i++)
        senders[i].next_issued = senders[i].next_seen = 0;
    sender_turn = 0;
}

static void command_connect(int count, int at_once)
{
    double until = clock_now() + CONNECT_SECONDS, begun = clock_now();
    long before = server_status("VmRSS:");
    int first = client_count, next = client_count;
    mode = QUIET;
    now = begun;
    closed_count = 0;
    while (!fault && now < until) {
        int under_way = 0;
        for (int i = first; i < next; i++) {
            under_way += clients[i].state != OPEN;
            first += i == first && clients[i].state == OPEN;
        }
        for (; under_way < at_once && next < count; under_way++)
            open_client(next++);
        client_count = next;
        if (under_way == 0)
            break;
        turn(until);
        if (closed_count > 0)
            note_fault("the server closed connections while clients joined");
    }
    if (!fault && now >= until)
        note_fault("the clients were not all let in within 60 s");
    printf("{\"clients\": %d, \"seconds\": %.4f, \"rss_before_kib\": %ld", open_count,
           clock_now() - begun, before);
    if (fault)
        printf(", \"fault\": \"%s\"", fault);
    printf("}\n");
}

/* A chat may answer the handshake before it counts the client in. Messages are sent, one at a
 * time, until one has reached everyone; whoever was let in too late for one never gets it. */
static void command_settle(void)
{
    struct phase p;
    double until = clock_now() + SETTLE_SECONDS;
    uint64_t missing;
    do {
        begin_senders(1, MESSAGE_BYTES);
        begin(&p, LOAD, 0, 0);
        issue(0);
        flush_sender(0);
        missing = (uint64_t)client_count;
        while (!fault && missing > 0 && now - last_delivery < 0.5) {
            turn(now + 0.05);
            missing = (uint64_t)client_count - deliveries;
        }
    } while (!fault && missing > 0 && now < until);
    if (missing > 0)
        note_fault("a message did not reach everyone who had joined");
    p.last = snapshot();
    mode = QUIET;
    report(&p, missing);
}

static void command_one(double warm, double seconds)
{
    struct phase p;
    begin_senders(1, MESSAGE_BYTES);
    begin(&p, ONE, warm, seconds);
    pending = 0;
    do {
        if (pending == 0) {
            pending = client_count;
            issue(0);
            issued_at = clock_now();
            flush_sender(0);
        }
    } while (go_on(&p, p.end));
    pace_of_one = (double)message_time_count / seconds;
    report(&p, drain(DRAIN_SECONDS));
}

/* With many clients not at each turn: the scan would be a good part of the generator's work. */
static uint64_t slowest(void)
{
    static uint32_t least;
    static double scanned;
    if (client_count > 100 && now - scanned < SCAN_SECONDS && got[0] > 0)
        return least;
    scanned = now;
    catch_up();
    least = UINT32_MAX;
    for (int i = 0; i < client_count; i++)
        least = got[i] < least ? got[i] : least;
    return least;
}

/* A second's worth of the server's own pace, at least of that with one in flight: enough that it
 * never waits for work and can batch, and the slowest are not left with minutes of it. */
static void adapt_window(uint64_t completed)
{
    double spent = now - window_since;
    if (spent >= WINDOW_SECONDS) {
        double pace = (double)(completed - completed_before) / spent;
        double wanted = pace > pace_of_one ? pace : pace_of_one;
        window = wanted < WINDOW_LEAST ? WINDOW_LEAST : wanted > WINDOW_MOST ? WINDOW_MOST : wanted;
        completed_before = completed;
        window_since = now;
    }
}

static void command_load(int count, double warm, double seconds)
{
    struct phase p;
    begin_senders(count, MESSAGE_BYTES);
    begin(&p, LOAD, warm, seconds);
    window_since = now - WINDOW_SECONDS;
    completed_before = 0;
    double begun = now;
    do {
        /* Never without a warm-up: the second half of it goes as the measuring will. */
        if (!skim && warm > 0 && now - begun > warm / 2)
            skim = (double)deliveries / (now - begun) > SKIM_FROM;
        uint64_t completed = slowest();
        adapt_window(completed);
        /* In lots of half a window: a sender that writes as fast as it can fills segments. */
        if (issued - completed <= window / 2)
            while (issued - completed < window) {
                issue(sender_turn);
                sender_turn = (sender_turn + 1) % sender_count;
            }
        for (int i = 0; i < sender_count; i++)
            if (senders[i].have > 0 && !clients[i].wants_out)
                flush_sender(i);
    } while (go_on(&p, p.end));
    report(&p, drain(DRAIN_SECONDS));
}

/* Times are taken from the schedule, not from the sending: a server that falls behind cannot
 * hide its delay by slowing the sender. */
static void command_rate(double per_second, double warm, double seconds)
{
    struct phase p;
    begin_senders(1, MESSAGE_BYTES);
    begin(&p, RATE, warm, seconds);
    schedule_begin = now;
    schedule_step = 1.0 / per_second;
    double next;
    do {
        now = clock_now();
        for (; (next = schedule_begin + schedule_step * (double)issued) <= now;)
            issue(0);
        flush_sender(0);
    } while (go_on(&p, next));
    report(&p, drain(DRAIN_SECONDS));
}

/* Unmeasured: fills what a stuck client's kernel buffers hold, and is all delivered. */
static void command_fill(int count, int bytes)
{
    struct phase p;
    begin_senders(1, bytes);
    begin(&p, LOAD, 0, 0);
    for (int i = 0; i < count; i++)
        issue(0);
    flush_sender(0);
    uint64_t missing = drain(DRAIN_SECONDS);
    p.last = snapshot();
    report(&p, missing);
}

static void build_echo(size_t bytes)
{
    free(echo_payload);
    free(echo_ring);
    echo_bytes = bytes;
    echo_payload = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) /* letters: it may be sent as text */
        echo_payload[i] = (unsigned char)('a' + (i * 7 + i / 251) % 26);
    echo_ring_frames = bytes + 14 < RING_BYTES ? RING_BYTES / (bytes + 14) : 1;
    echo_ring = malloc(echo_ring_frames * (bytes + 14));
    size_t at = 0;
    for (size_t i = 0; i < echo_ring_frames; i++)
        at += build_frame(echo_ring + at, bytes < 1000 ? 1 : 2, echo_payload, bytes);
    echo_frame = at / echo_ring_frames;
}

static void command_echo(size_t bytes, int depth, double warm, double seconds)
{
    struct phase p;
    build_echo(bytes);
    begin(&p, ECHO, warm, seconds);
    echo_whole = echo_again = true;
    issued = (uint64_t)depth * (uint64_t)client_count;
    issued_at = client_count == 1 && depth == 1 ? now : 0;
    for (int i = 0; i < client_count; i++) {
        clients[i].out = (uint64_t)depth * echo_frame;
        clients[i].phase = 0;
        flush_echo(&clients[i]);
    }
    while (go_on(&p, p.end))
        echo_whole = !p.warm || bytes < 1000;
    echo_again = false;
    for (double until = now + DRAIN_SECONDS; deliveries < issued && !fault && now < until;)
        turn(until);
    mode = QUIET;
    report(&p, issued - deliveries);
}

/* Returns how long the slowest of those under way has been. */
static double step_handshakes(int at_once, bool again)
{
    double longest = 0;
    for (int i = 0; i < at_once; i++) {
        struct client *c = &clients[i];
        if (c->state == OPEN) {
            c->state = CLOSING;
            send_control(c, 8, "\x03\xe8", 2);
        } else if (c->state == FREE && c->since > 0) {
            deliveries++;
            add_sample(now - c->since);
            c->since = 0;
        }
        if (c->state == FREE && again)
            open_client(i);
        if (c->state != FREE && now - c->since > longest)
            longest = now - c->since;
    }
    return longest;
}

static void command_handshakes(int at_once, double warm, double seconds)
{
    struct phase p;
    client_count = at_once;
    begin(&p, HANDSHAKES, warm, seconds);
    do {
        last_delivery = now;
        if (step_handshakes(at_once, true) > 5.0)
            note_fault("a connection was not let in, or not closed, for 5 s");
    } while (go_on(&p, p.end));
    for (double until = now + 5.0; open_count > 0 && !fault && now < until; turn(until))
        step_handshakes(at_once, false);
    mode = QUIET;
    report(&p, (uint64_t)open_count);
}

static void command_idle(double seconds)
{
    struct phase p;
    pings = 0;
    begin(&p, QUIET, 0, seconds);
    while (go_on(&p, p.end))
        ;
    report(&p, 0);
}

/* ---- the stuck client ---- */

/* A short receive buffer, and short segments, which keep the server's send buffer for it short
 * too: what a stuck client costs then shows after some hundred messages, not after megabytes. */
static void command_stuck(void)
{
    int yes = 1, bytes = 2048, segment = 536;
    struct timeval limit = {.tv_sec = 5};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof to;
    stuck_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(stuck_fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(stuck_fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(stuck_fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    setsockopt(stuck_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(stuck_fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        send(stuck_fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        give_up("the stuck client could not connect");
    size_t have = 0;
    while (have < sizeof answer - 1 && recv(stuck_fd, answer + have, 1, 0) == 1) {
        answer[++have] = 0;
        if (strstr(answer, "\r\n\r\n"))
            break;
    }
    getsockname(stuck_fd, (struct sockaddr *)&to, &length);
    stuck_port = ntohs(to.sin_port);
    printf("{\"joined\": %s}\n", good_answer(answer) ? "true" : "false");
}

/* The server's end of it, as the kernel sees it: a server that gave it up has no socket for it
 * any more, or one that is closing; the client itself cannot tell while it does not read. */
static void command_stuck_state(void)
{
    FILE *table = fopen("/proc/net/tcp", "r");
    char line[512];
    const char *state = "dropped";
    unsigned from, to, code;
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, " %*d: %*x:%x %*x:%x %x", &from, &to, &code) == 3 &&
            from == (unsigned)port && to == (unsigned)stuck_port)
            state = code == 1 ? "kept" : "dropped";
    if (table)
        fclose(table);
    printf("{\"stuck\": \"%s\", \"rss_kib\": %ld}\n", state, server_status("VmRSS:"));
}

/* ---- commands ---- */

static void command_quit(void)
{
    double until = clock_now() + 2.0;
    mode = QUIET;
    fault = NULL;
    now = clock_now();
    for (int i = 0; i < client_count; i++)
        if (clients[i].state == OPEN) {
            clients[i].state = CLOSING;
            send_control(&clients[i], 8, "\x03\xe8", 2);
        }
    while (open_count > 0 && now < until && !fault)
        turn(until);
    printf("{\"open\": %d}\n", open_count);
}

static bool obey(char *line)
{
    int count, depth;
    size_t bytes;
    double rate, warm, seconds;
    fault = NULL;
    if (sscanf(line, "connect %d %d", &count, &depth) == 2 && count <= client_room && depth > 0)
        command_connect(count, depth);
    else if (strcmp(line, "settle\n") == 0)
        command_settle();
    else if (sscanf(line, "one %lf %lf", &warm, &seconds) == 2)
        command_one(warm, seconds);
    else if (sscanf(line, "load %d %lf %lf", &count, &warm, &seconds) == 3)
        command_load(count, warm, seconds);
    else if (sscanf(line, "fill %d %d", &count, &depth) == 2 && depth >= MESSAGE_BYTES &&
             depth <= MESSAGE_MOST)
        command_fill(count, depth);
    else if (sscanf(line, "rate %lf %lf %lf", &rate, &warm, &seconds) == 3)
        command_rate(rate, warm, seconds);
    else if (sscanf(line, "echo %zu %d %lf %lf", &bytes, &depth, &warm, &seconds) == 4)
        command_echo(bytes, depth, warm, seconds);
    else if (sscanf(line, "handshakes %d %lf %lf", &count, &warm, &seconds) == 3)
        command_handshakes(count, warm, seconds);
    else if (sscanf(line, "idle %lf", &seconds) == 1)
        command_idle(seconds);
    else if (strcmp(line, "stuck\n") == 0)
        command_stuck();
    else if (strcmp(line, "stuck?\n") == 0)
        command_stuck_state();
    else if (strcmp(line, "quit\n") == 0)
        command_quit();
    else
        printf("{\"fault\": \"load generator: no such command\"}\n");
    return strcmp(line, "quit\n") != 0;
}

int main(int argc, char **argv)
{
    char line[256];
    struct rlimit files;
    if (argc < 4) {
        fprintf(stderr, "usage: load PORT PATH SERVER_PID [opaque]\n");
        return 2;
    }
    port = atoi(argv[1]);
    path = argv[2];
    server_pid = atoi(argv[3]);
    opaque = argc > 4 && strcmp(argv[4], "opaque") == 0;
    getrlimit(RLIMIT_NOFILE, &files);
    client_room = files.rlim_cur > 20 ? (int)files.rlim_cur - 20 : 0;
    client_room = client_room < 60000 ? client_room : 60000;
    clients = calloc((size_t)client_room, sizeof *clients);
    got = calloc((size_t)client_room, sizeof *got);
    taken = calloc((size_t)client_room, sizeof *taken);
    ends = malloc(MESSAGES_MOST * sizeof *ends);
    samples = malloc(SAMPLES * sizeof *samples);
    message_times = malloc(SAMPLES * sizeof *message_times);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n"
             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port, port);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) && obey(line))
        ;
    return 0;
}
