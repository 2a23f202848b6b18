/* Load for the benchmarks of the edge, in one thread over epoll: a client in Python would cost more than
 * what it measures.
 *
 *   load serve     [--key KEY --accept ACCEPT]            an origin
 *   load echo      --connections N --size BYTES --seconds S [--rate PER_SECOND]
 *   load bulk      --connections N --seconds S [--size BYTES, beyond 64 KiB: 1 MiB]
 *   load handshake --concurrency N --seconds S [--count N] [--leave 1]
 *   load hold      --connections N --concurrency N --every S
 *
 * All but `serve` take --to ADDRESS:PORT[,ADDRESS:PORT...], --host NAME[,NAME...] (taken in turn),
 * --key KEY, --sources N (that many client addresses, 127.0.1.1, 127.0.2.1 and so on) and --tls 1. All
 * take --limit SECONDS, after which the process ends with status 3, whatever it is at.
 *
 * Spoken over standard output and input, a line each, so that whoever measures knows the moments:
 *
 *   serve      says `port N`, and serves until its input ends
 *   echo, bulk say `open`, wait for `go`, run, say their result, and close when the input ends
 *   handshake  waits for `go`, runs, says its result
 *   hold       opens at once, says its result; `go` starts a message of 64 bytes over each connection
 *              every S seconds; at the end of its input it says how that went, and closes
 *
 * A result is a line of JSON. Times in it are in microseconds.
 *
 * A handshake is over when the other side has ended the connection; with --leave 1 the client ends it
 * as soon as its Close was answered.
 *
 * The origin's answer to `/bulk` is frames of 64 KiB without end, to `/bulk-large` of 1 MiB; to any other, an echo that
 * is a server's: frames without the mask bit, a Close for a Close, then the end. Payloads are masked with
 * zeros, so an echo needs no arithmetic. There is one key, so an accept needs no hash.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
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

#include <openssl/err.h>
#include <openssl/ssl.h>

enum { READ_MAX = 256 * 1024, HEAD_MAX = 4096, BULK_FRAME = 64 * 1024, LARGE_FRAME = 1024 * 1024, PLACES = 16, CODES = 32 };

/* ---------------------------------------------------------------- what is common */

static int poller;
static char scratch[READ_MAX];
static char made[READ_MAX + 16];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void too_long(int signal_number) {
    (void)signal_number;
    static const char text[] = "load: over its limit of time\n";
    if (write(2, text, sizeof text - 1) < 0) { /* nobody to tell */
    }
    _exit(3);
}

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void watch(int descriptor, void *what) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = what};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event)) fail("epoll_ctl: %s", strerror(errno));
}

/* Durations, in microseconds. */
struct durations {
    float *values;
    size_t count, room;
};

static void add(struct durations *all, int64_t ns) {
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 4096;
        all->values = realloc(all->values, all->room * sizeof *all->values);
        if (!all->values) fail("no memory");
    }
    all->values[all->count++] = (float)ns / 1000;
}

static int compare(const void *left, const void *right) {
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

static double share(const struct durations *sorted, double part) {
    if (!sorted->count) return 0;
    size_t at = (size_t)((double)sorted->count * part);
    return sorted->values[at < sorted->count ? at : sorted->count - 1];
}

static const char *shares(struct durations *all) {
    static char text[4][128];
    static int turn;
    char *into = text[turn++ % 4];
    qsort(all->values, all->count, sizeof *all->values, compare);
    snprintf(into, sizeof text[0], "{\"p50\": %.1f, \"p99\": %.1f, \"most\": %.1f}", share(all, 0.5),
             share(all, 0.99), share(all, 1));
    return into;
}

/* How often each outcome that was no success occurred. */
static struct {
    char name[48];
    long count;
} outcomes[CODES];

static void count_outcome(const char *name) {
    for (int i = 0; i < CODES; i++) {
        if (!outcomes[i].count) snprintf(outcomes[i].name, sizeof outcomes[i].name, "%s", name);
        if (!strcmp(outcomes[i].name, name)) {
            outcomes[i].count++;
            return;
        }
    }
}

static const char *outcome_text(void) {
    static char text[CODES * 64];
    size_t at = 0;
    text[at++] = '{';
    for (int i = 0; i < CODES && outcomes[i].count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"%s\": %ld", i ? ", " : "",
                               outcomes[i].name, outcomes[i].count);
    snprintf(text + at, sizeof text - at, "}");
    return text;
}

/* ---------------------------------------------------------------- arguments */

static struct {
    int connections, concurrency, size, sources, tls, leave, limit;
    long count;
    double seconds, every, rate;
    const char *key, *accept;
    struct sockaddr_in to[PLACES];
    char *hosts[PLACES];
    int places, names;
} given = {.connections = 1,
           .concurrency = 64,
           .size = 64,
           .limit = 120,
           .seconds = 1,
           .every = 10,
           .key = "dGhlIHNhbXBsZSBub25jZQ==",
           .accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="};

static void read_arguments(int count, char **words) {
    for (int i = 2; i < count; i += 2) {
        const char *name = words[i];
        if (i + 1 == count) fail("%s: its value is missing", name);
        char *value = words[i + 1];
        if (!strcmp(name, "--connections")) given.connections = atoi(value);
        else if (!strcmp(name, "--concurrency")) given.concurrency = atoi(value);
        else if (!strcmp(name, "--count")) given.count = atol(value);
        else if (!strcmp(name, "--size")) given.size = atoi(value);
        else if (!strcmp(name, "--sources")) given.sources = atoi(value);
        else if (!strcmp(name, "--tls")) given.tls = atoi(value);
        else if (!strcmp(name, "--leave")) given.leave = atoi(value);
        else if (!strcmp(name, "--limit")) given.limit = atoi(value);
        else if (!strcmp(name, "--seconds")) given.seconds = atof(value);
        else if (!strcmp(name, "--every")) given.every = atof(value);
        else if (!strcmp(name, "--rate")) given.rate = atof(value);
        else if (!strcmp(name, "--key")) given.key = value;
        else if (!strcmp(name, "--accept")) given.accept = value;
        else if (!strcmp(name, "--host")) {
            for (char *part = strtok(value, ","); part && given.names < PLACES; part = strtok(NULL, ","))
                given.hosts[given.names++] = part;
        } else if (!strcmp(name, "--to")) {
            for (char *part = strtok(value, ","); part && given.places < PLACES; part = strtok(NULL, ",")) {
                char *colon = strchr(part, ':');
                struct sockaddr_in *place = &given.to[given.places++];
                if (!colon) fail("--to takes ADDRESS:PORT");
                *colon = 0;
                place->sin_family = AF_INET;
                place->sin_port = htons((uint16_t)atoi(colon + 1));
                if (inet_pton(AF_INET, part, &place->sin_addr) != 1) fail("%s is no address", part);
            }
        } else fail("there is no %s", name);
    }
    if (given.size < 1 || given.size > LARGE_FRAME) fail("--size takes 1 to %d", LARGE_FRAME);
}

/* ---------------------------------------------------------------- the origin */

/* What is sent without end. */
struct bulk {
    char *frames;
    size_t length;
};

static struct bulk usual, large;

/* `rest`: what the kernel did not take yet; reading waits for it. */
struct visit {
    int fd;
    bool upgraded, closing;
    const struct bulk *bulk;
    char *head;
    size_t head_length;
    unsigned char frame_head[14];
    size_t frame_have;
    uint64_t frame_left;
    char *rest;
    size_t rest_at, rest_length;
};


static void end_visit(struct visit *visit) {
    close(visit->fd);
    free(visit->head);
    if (!visit->bulk) free(visit->rest);
    free(visit);
}

/* False where the visit is over. */
static bool send_to(struct visit *visit, const char *data, size_t length) {
    ssize_t sent = send(visit->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < 0) sent = 0;
    if ((size_t)sent < length) {
        visit->rest_length = length - (size_t)sent;
        visit->rest_at = 0;
        visit->rest = malloc(visit->rest_length);
        if (!visit->rest) fail("no memory");
        memcpy(visit->rest, data + sent, visit->rest_length);
    }
    return true;
}

/* What a client's frames are as a server's. */
static size_t echo_of(struct visit *visit, const char *data, size_t length) {
    size_t out = 0;
    for (size_t at = 0; at < length;) {
        if (visit->frame_left) {
            size_t part = length - at < visit->frame_left ? length - at : visit->frame_left;
            memcpy(made + out, data + at, part);
            at += part;
            out += part;
            visit->frame_left -= part;
            continue;
        }
        if (visit->closing) break;
        unsigned char *head = visit->frame_head;
        head[visit->frame_have++] = (unsigned char)data[at++];
        if (visit->frame_have < 2) continue;
        size_t sized = (head[1] & 127) == 127 ? 10 : (head[1] & 127) == 126 ? 4 : 2;
        if (visit->frame_have < sized + (head[1] & 128 ? 4 : 0)) continue;
        uint64_t payload = head[1] & 127;
        if (sized > 2) {
            payload = 0;
            for (size_t i = 2; i < sized; i++) payload = payload << 8 | head[i];
        }
        visit->closing = (head[0] & 15) == 8;
        head[1] &= 127;
        memcpy(made + out, head, sized);
        out += sized;
        visit->frame_left = payload;
        visit->frame_have = 0;
    }
    return out;
}

static bool upgrade(struct visit *visit, const char *data, size_t length) {
    if (!visit->head && !(visit->head = malloc(HEAD_MAX + 1))) fail("no memory");
    if (visit->head_length + length > HEAD_MAX) return false;
    memcpy(visit->head + visit->head_length, data, length);
    visit->head_length += length;
    visit->head[visit->head_length] = 0;
    char *end = strstr(visit->head, "\r\n\r\n");
    if (!end) return true;
    static char answer[512];
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        given.accept);
    visit->upgraded = true;
    if (strstr(visit->head, " /bulk")) visit->bulk = strstr(visit->head, " /bulk-large") ? &large : &usual;
    if (!send_to(visit, answer, (size_t)size)) return false;
    size_t early = visit->head_length - (size_t)(end + 4 - visit->head);
    bool fine = true;
    if (early && !visit->bulk) {
        size_t out = echo_of(visit, end + 4, early);
        fine = send_to(visit, made, out);
    }
    free(visit->head);
    visit->head = NULL;
    return fine;
}

/* False where it is over. */
static bool pour(struct visit *visit) {
    for (;;) {
        const struct bulk *bulk = visit->bulk;
        ssize_t sent = send(visit->fd, bulk->frames + visit->rest_at, bulk->length - visit->rest_at, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        visit->rest_at = (visit->rest_at + (size_t)sent) % bulk->length;
    }
}

/* False where it is over. */
static bool attend(struct visit *visit) {
    for (;;) {
        if (visit->rest && !visit->bulk) {
            ssize_t sent = send(visit->fd, visit->rest + visit->rest_at, visit->rest_length - visit->rest_at,
                                MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN;
            visit->rest_at += (size_t)sent;
            if (visit->rest_at < visit->rest_length) continue;
            free(visit->rest);
            visit->rest = NULL;
        }
        if (visit->closing && !visit->frame_left) return false;
        ssize_t got = recv(visit->fd, scratch, READ_MAX, 0);
        if (got == 0) return false;
        if (got < 0 && errno != EAGAIN) return false;
        if (got < 0) return visit->bulk ? pour(visit) : true;
        if (visit->bulk) continue;
        if (!visit->upgraded) {
            if (!upgrade(visit, scratch, (size_t)got)) return false;
            continue;
        }
        size_t out = echo_of(visit, scratch, (size_t)got);
        if (out && !send_to(visit, made, out)) return false;
    }
}

static void make_bulk(struct bulk *bulk, size_t size, size_t count) {
    bulk->length = count * (size + 10);
    bulk->frames = calloc(1, bulk->length);
    if (!bulk->frames) fail("no memory");
    for (size_t i = 0; i < count; i++) {
        unsigned char *frame = (unsigned char *)bulk->frames + i * (size + 10);
        frame[0] = 0x82;
        frame[1] = 127;
        for (int byte = 0; byte < 8; byte++) frame[2 + byte] = (unsigned char)((uint64_t)size >> (8 * (7 - byte)));
    }
}

static int serve(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 65535) ||
        getsockname(listener, (struct sockaddr *)&here, &size))
        fail("cannot listen: %s", strerror(errno));
    make_bulk(&usual, BULK_FRAME, 4);
    make_bulk(&large, LARGE_FRAME, 1);
    static char listening, input;
    watch(listener, &listening);
    watch(0, &input);
    say("port %d", ntohs(here.sin_port));
    struct epoll_event events[512];
    for (;;) {
        int count = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &input) return 0;
            if (what == &listening) {
                for (;;) {
                    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                    if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
                    if (fd < 0 && errno == EMFILE) fail("no descriptor is left");
                    if (fd < 0) break;
                    int one = 1;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    struct visit *visit = calloc(1, sizeof *visit);
                    if (!visit) fail("no memory");
                    visit->fd = fd;
                    watch(fd, visit);
                }
            } else if (!attend(what)) {
                end_visit(what);
            }
        }
    }
}

/* ---------------------------------------------------------------- clients */

enum state { IDLE, CONNECTING, SHAKING, ASKING, OPEN, CLOSING };
enum work { ECHO, BULK, HANDSHAKE, HOLD };

/* waiting: bytes of the echo that are still to come. unsent: of the message that are still to go.
 * began: when the connection, and later when the message, was begun. */
struct client {
    int fd, number;
    enum state state;
    SSL *ssl;
    char *head;
    size_t head_length;
    size_t waiting, unsent;
    int64_t began, again;
};

static enum work work;
static struct client *clients;
static SSL_CTX *tls;
static char *message;
static size_t message_length, echo_length;
static struct durations opening, latency;
static long opened, under_way, finished, sent_count, attempts, lost, skipped;
static uint64_t received;
static bool running;
static int64_t run_until;

static size_t frame_of(char *into, int opcode, size_t size, bool masked) {
    size_t at = 0;
    into[at++] = (char)(0x80 | opcode);
    int mask = masked ? 0x80 : 0;
    if (size < 126) {
        into[at++] = (char)(mask | (int)size);
    } else if (size < 65536) {
        into[at++] = (char)(mask | 126);
        into[at++] = (char)(size >> 8);
        into[at++] = (char)size;
    } else {
        into[at++] = (char)(mask | 127);
        for (int i = 7; i >= 0; i--) into[at++] = (char)((uint64_t)size >> (8 * i));
    }
    if (masked)
        for (int i = 0; i < 4; i++) into[at++] = 0;
    return at;
}

/* As recv and send: -1 with EAGAIN where it would wait. */
static ssize_t take(struct client *client, char *into, size_t size) {
    if (!client->ssl) return recv(client->fd, into, size, 0);
    ERR_clear_error();
    int got = SSL_read(client->ssl, into, (int)size);
    if (got > 0) return got;
    int error = SSL_get_error(client->ssl, got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    errno = ECONNRESET;
    return -1;
}

static ssize_t give(struct client *client, const char *data, size_t size) {
    if (!client->ssl) return send(client->fd, data, size, MSG_NOSIGNAL);
    ERR_clear_error();
    int sent = SSL_write(client->ssl, data, (int)size);
    if (sent > 0) return sent;
    int error = SSL_get_error(client->ssl, sent);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}

static void forget(struct client *client) {
    if (client->ssl) SSL_free(client->ssl);
    client->ssl = NULL;
    free(client->head);
    client->head = NULL;
    client->head_length = 0;
    close(client->fd);
    client->fd = -1;
    client->state = IDLE;
}

static void again_later(struct client *client) { client->again = now_ns() + 200000000; }

static void failed(struct client *client, const char *why) {
    if (client->state == OPEN) {
        opened--;
        lost++;
    } else {
        under_way--;
    }
    count_outcome(why);
    forget(client);
    if (work == ECHO || work == BULK) fail("load: a connection failed: %s", why);
    if (work == HOLD) again_later(client);
}

static void begin(struct client *client) {
    int one = 1;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0) fail("no descriptor for connection %d: %s", client->number, strerror(errno));
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (given.sources) {
        /* The port is chosen at connect, when the whole of the pair is known. */
        setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        uint32_t address = 0x7f000001u + ((uint32_t)(client->number % given.sources + 1) << 8);
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
        if (bind(client->fd, (struct sockaddr *)&from, sizeof from)) fail("bind: %s", strerror(errno));
    }
    struct sockaddr_in *to = &given.to[client->number % given.places];
    client->state = CONNECTING;
    client->began = now_ns();
    client->waiting = client->unsent = 0;
    attempts++;
    under_way++;
    if (connect(client->fd, (struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS) {
        failed(client, strerror(errno));
        return;
    }
    watch(client->fd, client);
}

static void send_message(struct client *client) {
    size_t at = message_length - client->unsent;
    ssize_t sent = give(client, message + at, client->unsent);
    if (sent > 0) client->unsent -= (size_t)sent;
    else if (errno != EAGAIN) failed(client, "reset");
}

static void start_message(struct client *client) {
    client->began = now_ns();
    client->unsent = message_length;
    client->waiting = echo_length;
    sent_count++;
    send_message(client);
}

static void ask(struct client *client) {
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        work != BULK ? "/" : given.size > BULK_FRAME ? "/bulk-large" : "/bulk", given.hosts[client->number % given.names], given.key);
    client->state = ASKING;
    if (give(client, request, (size_t)size) != size) failed(client, "head not sent");
}

/* The answer's head may come in parts. True where the connection is open. */
static bool answered(struct client *client, const char *data, size_t length) {
    if (!client->head && !(client->head = malloc(HEAD_MAX + 1))) fail("no memory");
    if (client->head_length + length > HEAD_MAX) length = HEAD_MAX - client->head_length;
    memcpy(client->head + client->head_length, data, length);
    client->head_length += length;
    client->head[client->head_length] = 0;
    if (!strstr(client->head, "\r\n\r\n")) return false;
    if (strncmp(client->head, "HTTP/1.1 101", 12)) {
        char why[48] = "";
        char *code = strcasestr(client->head, "x-handoff-error: ");
        if (code) sscanf(code, "%*s %40s", why);
        else snprintf(why, sizeof why, "status %.3s", client->head_length > 12 ? client->head + 9 : "?");
        failed(client, why);
        return false;
    }
    free(client->head);
    client->head = NULL;
    client->head_length = 0;
    return true;
}

/* By level: who pours without end leaves no edge to wait for, and each is to have its turn. */
static void listen_to(struct client *client, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event);
}

static void is_open(struct client *client) {
    add(&opening, now_ns() - client->began);
    under_way--;
    opened++;
    client->state = OPEN;
    if (work == BULK) listen_to(client, 0);
    if (work != HANDSHAKE) return;
    static const char end[] = {(char)0x88, (char)0x82, 0, 0, 0, 0, 0x03, (char)0xe8};
    client->state = CLOSING;
    under_way++;
    opened--;
    if (give(client, end, sizeof end) != sizeof end) failed(client, "close not sent");
}

static void is_over(struct client *client) {
    if (client->state == CLOSING) {
        add(&latency, now_ns() - client->began);
        under_way--;
        finished++;
        forget(client);
    } else {
        failed(client, client->state == OPEN ? "ended" : "ended without an answer");
    }
}

static void read_open(struct client *client) {
    for (int turns = 0; work != BULK || turns < 16; turns++) {
        ssize_t got;
        /* What nobody looks at need not be copied. */
        if (work == BULK && !client->ssl) got = recv(client->fd, NULL, 1 << 20, MSG_TRUNC);
        else got = take(client, scratch, READ_MAX);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            if (got == 0 || client->state == CLOSING) is_over(client);
            else failed(client, "reset");
            return;
        }
        received += (uint64_t)got;
        if (client->state == CLOSING && given.leave) {
            is_over(client);
            return;
        }
        if (work == BULK || client->state == CLOSING) continue;
        if ((size_t)got > client->waiting) fail("load: more came back than was sent");
        client->waiting -= (size_t)got;
        if (client->waiting == 0) {
            int64_t now = now_ns();
            add(&latency, now - client->began);
            if (work == ECHO && running && given.rate <= 0 && now < run_until) start_message(client);
            if (client->fd < 0) return;
        }
    }
}

static void turn(struct client *client) {
    if (client->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        struct sockaddr_in peer;
        socklen_t peer_size = sizeof peer;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            failed(client, strerror(error));
            return;
        }
        if (getpeername(client->fd, (struct sockaddr *)&peer, &peer_size)) return;
        if (given.tls) {
            client->ssl = SSL_new(tls);
            SSL_set_fd(client->ssl, client->fd);
            SSL_set_tlsext_host_name(client->ssl, given.hosts[client->number % given.names]);
            SSL_set_connect_state(client->ssl);
            client->state = SHAKING;
        } else {
            ask(client);
        }
    }
    if (client->state == SHAKING) {
        ERR_clear_error();
        int done = SSL_do_handshake(client->ssl);
        if (done != 1) {
            int error = SSL_get_error(client->ssl, done);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) failed(client, "TLS failed");
            return;
        }
        ask(client);
    }
    while (client->state == ASKING) {
        ssize_t got = take(client, scratch, HEAD_MAX);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            if (got == 0) is_over(client);
            else failed(client, "reset");
            return;
        }
        if (answered(client, scratch, (size_t)got)) is_open(client);
    }
    if (client->state == OPEN && client->unsent) send_message(client);
    if (client->state == OPEN || client->state == CLOSING) read_open(client);
}

/* ---------------------------------------------------------------- what clients are told */

enum input { NOTHING, GO, END };

static enum input read_input(void) {
    char line[64];
    ssize_t got = read(0, line, sizeof line);
    if (got < 0) return NOTHING;
    return got == 0 ? END : GO;
}

static char input;

/* One round of events, waited for up to so many nanoseconds; below zero, without a bound. */
static enum input once(int64_t ns) {
    struct epoll_event events[512];
    struct timespec wait = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    enum input said = NOTHING;
    int count = epoll_pwait2(poller, events, 512, ns < 0 ? NULL : &wait, NULL);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &input) said = read_input();
        else if (((struct client *)events[i].data.ptr)->fd >= 0) turn(events[i].data.ptr);
    }
    return said;
}

static void open_all(int concurrency) {
    int next = 0;
    while (opened < given.connections) {
        int64_t now = now_ns();
        while (under_way < concurrency && next < given.connections) begin(&clients[next++]);
        /* Those that were refused come again, as a client would. */
        if (next == given.connections && opened + under_way < given.connections)
            for (int i = 0; i < given.connections && under_way < concurrency; i++)
                if (clients[i].state == IDLE && clients[i].again <= now) begin(&clients[i]);
        if (once(20000000) == END) exit(0);
    }
}

static void wait_for_go(void) {
    enum input said;
    while ((said = once(-1)) != GO)
        if (said == END) exit(0);
}

static void run_messages(void) {
    wait_for_go();
    int64_t began = now_ns();
    running = true;
    latency.count = 0;
    received = 0;
    run_until = began + (int64_t)(given.seconds * 1e9);
    long number = 0;
    if (work == ECHO && given.rate <= 0)
        for (int i = 0; i < given.connections; i++) start_message(&clients[i]);
    if (work == BULK)
        for (int i = 0; i < given.connections; i++) listen_to(&clients[i], EPOLLIN);
    int64_t now;
    while ((now = now_ns()) < run_until) {
        int64_t next = run_until;
        if (work == ECHO && given.rate > 0) {
            int64_t due;
            while ((due = began + (int64_t)((double)number / given.rate * 1e9)) <= now) {
                struct client *client = &clients[number++ % given.connections];
                if (client->waiting) skipped++;
                else start_message(client);
            }
            next = due < run_until ? due : run_until;
        }
        once(next - now);
    }
    running = false;
    double seconds = (double)(now - began) / 1e9;
    say("{\"seconds\": %.4f, \"messages\": %zu, \"bytes\": %llu, \"skipped\": %ld, \"latency\": %s}", seconds,
        latency.count, (unsigned long long)received, skipped, shares(&latency));
    wait_for_go();
}

static void run_handshakes(void) {
    wait_for_go();
    int64_t began = now_ns(), now;
    int64_t until = began + (int64_t)(given.seconds * 1e9);
    while ((now = now_ns()), under_way || (now < until && !(given.count && finished >= given.count))) {
        bool more = now < until;
        for (int i = 0; more && i < given.concurrency; i++)
            if (clients[i].state == IDLE && !(given.count && finished + under_way >= given.count))
                begin(&clients[i]);
        /* One that hangs is not waited for without end. */
        if (now > until + 5000000000) {
            count_outcome("hung");
            break;
        }
        once(20000000);
    }
    say("{\"seconds\": %.4f, \"finished\": %ld, \"attempts\": %ld, \"opening\": %s, \"whole\": %s, "
        "\"outcomes\": %s}",
        (double)(now - began) / 1e9, finished, attempts, shares(&opening), shares(&latency), outcome_text());
}

static void run_hold(void) {
    int64_t began = now_ns();
    open_all(given.concurrency);
    say("{\"seconds\": %.4f, \"opened\": %ld, \"attempts\": %ld, \"opening\": %s, \"outcomes\": %s}",
        (double)(now_ns() - began) / 1e9, opened, attempts, shares(&opening), outcome_text());
    wait_for_go();
    began = now_ns();
    double gap = given.every * 1e9 / given.connections;
    for (long number = 0;;) {
        int64_t now = now_ns(), due;
        while ((due = began + (int64_t)((double)number * gap)) <= now) {
            struct client *client = &clients[number++ % given.connections];
            if (client->state == OPEN && !client->waiting) start_message(client);
            else skipped++;
        }
        if (once(due - now) == END) break;
    }
    say("{\"messages\": %zu, \"skipped\": %ld, \"lost\": %ld, \"latency\": %s}", latency.count, skipped, lost,
        shares(&latency));
}

int main(int count, char **words) {
    if (count < 2) fail("usage: load serve|echo|bulk|handshake|hold [--NAME VALUE]...");
    read_arguments(count, words);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, too_long);
    alarm((unsigned)given.limit);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    if (!strcmp(words[1], "serve")) return serve();
    if (!given.places) fail("--to is missing");
    if (!given.names) given.hosts[given.names++] = "localhost";
    if (!strcmp(words[1], "echo")) work = ECHO;
    else if (!strcmp(words[1], "bulk")) work = BULK;
    else if (!strcmp(words[1], "handshake")) work = HANDSHAKE;
    else if (!strcmp(words[1], "hold")) work = HOLD;
    else fail("there is no %s", words[1]);
    if (work != BULK && given.size > READ_MAX - 16) fail("--size takes 1 to %d, but for bulk", READ_MAX - 16);
    if (given.tls) {
        /* It is the server whose cost is asked for: nothing is verified, and no session is resumed. */
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    message = calloc(1, (size_t)given.size + 16);
    if (!message) fail("no memory");
    message_length = frame_of(message, 2, (size_t)given.size, true) + (size_t)given.size;
    echo_length = message_length - 4;
    int places = work == HANDSHAKE ? given.concurrency : given.connections;
    clients = calloc((size_t)places, sizeof *clients);
    if (!clients) fail("no memory");
    for (int i = 0; i < places; i++) clients[i].number = i, clients[i].fd = -1;
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &input};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    if (work == HANDSHAKE) {
        run_handshakes();
    } else if (work == HOLD) {
        run_hold();
    } else {
        open_all(given.concurrency);
        say("open");
        run_messages();
    }
    return 0;
}
