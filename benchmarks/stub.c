/* A server with an exact schedule that logs when each token truly left: the truth that the client is measured against.
 *
 * stub FIRST_US GAP_US TOKENS LOG: listens on a free port of 127.0.0.1, prints it, and answers every POST with TOKENS
 * events, the first FIRST_US after the request came in, then one every GAP_US; with GAP_US 0 as fast as it goes, in writes
 * of many events. The first token of a reply is the number of its row in LOG. On SIGTERM it writes LOG: for each request
 * TOKENS + 1 native int64, the time at which it came in and at which each token was handed to the kernel, CLOCK_MONOTONIC.
 * A GET is answered with a list of one model and stands in no log: other clients ask before they begin.
 * Not the stub server of harness.drivers.stub, because Python cannot send what the client's cost is measured with.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 65536
#define INPUT 65536
#define OUTPUT 16384

typedef struct { char *input; int filled; long row; int sent; int waits; int64_t due; char *out; int out_from, out_to; } Connection;

static Connection connections[CONNECTIONS];
static int heap[CONNECTIONS], heap_size, poller, tokens;
static int64_t first_ns, gap_ns, *log_rows;
static long rows, rows_held;
static volatile sig_atomic_t stopping;
static const char *WORDS[] = {" the", " of", " and", " token", " latency", " a", " measured", " to", " stream", " is"};
static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

static const char MODELS[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n"
    "{\"object\":\"list\",\"data\":[{\"id\":\"stub\",\"x\":12345}]}";

static int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void stop(int number) { (void)number; stopping = 1; }

static void sift_down(int at) {
    for (;;) {
        int least = at, child = 2 * at + 1;
        for (int c = child; c < child + 2 && c < heap_size; c++)
            if (connections[heap[c]].due < connections[heap[least]].due) least = c;
        if (least == at) return;
        int t = heap[at]; heap[at] = heap[least]; heap[least] = t;
        at = least;
    }
}

static void heap_push(int file) {
    int at = heap_size++;
    heap[at] = file;
    while (at && connections[heap[at]].due < connections[heap[(at - 1) / 2]].due) {
        int up = (at - 1) / 2, t = heap[at]; heap[at] = heap[up]; heap[up] = t;
        at = up;
    }
}

static void heap_pop(void) { heap[0] = heap[--heap_size]; sift_down(0); }

static int chunk(char *to, const char *body) { return sprintf(to, "%zx\r\n%s\r\n", strlen(body), body); }

static int event(char *to, long row, int number) {
    char body[512], text[32];
    if (number == 0) snprintf(text, sizeof text, "%ld", row);
    else snprintf(text, sizeof text, "%s", WORDS[(row + number) % 10]);
    snprintf(body, sizeof body,
        "data: {\"id\":\"cmpl-%08ld\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"stub\",\"choices\":"
        "[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}]}\n\n", row, text);
    return chunk(to, body);
}

static int ending(char *to) {
    char body[512];
    snprintf(body, sizeof body,
        "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", tokens);
    int size = chunk(to, body);
    return size + sprintf(to + size, "0\r\n\r\n");
}

static void drop(int file) {
    Connection *c = &connections[file];
    if (c->row >= 0 && !c->waits) { /* still in the heap: let its turn find it gone */
        for (int i = 0; i < heap_size; i++) if (heap[i] == file) { heap[i] = heap[--heap_size]; break; }
        for (int i = heap_size / 2; i >= 0; i--) sift_down(i);
    }
    free(c->input); free(c->out);
    memset(c, 0, sizeof *c);
    c->row = -1;
    close(file);
}

/* Returns 0 when everything that was prepared is with the kernel. */
static int flush(int file) {
    Connection *c = &connections[file];
    while (c->out_from < c->out_to) {
        ssize_t n = send(file, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            struct epoll_event e = {EPOLLIN | EPOLLOUT, {.fd = file}};
            epoll_ctl(poller, EPOLL_CTL_MOD, file, &e);
            c->waits = 1;
            return 1;
        }
        if (n < 0) return -1;
        c->out_from += n;
    }
    c->out_from = c->out_to = 0;
    if (c->waits) {
        struct epoll_event e = {EPOLLIN, {.fd = file}};
        epoll_ctl(poller, EPOLL_CTL_MOD, file, &e);
        c->waits = 0;
    }
    return 0;
}

/* One turn of a stream: the tokens that are due, and the end after the last one. */
static void turn(int file) {
    Connection *c = &connections[file];
    int64_t *log = log_rows + c->row * (tokens + 1);
    do {
        log[c->sent + 1] = now_ns();
        c->out_to += event(c->out + c->out_to, c->row, c->sent++);
    } while (gap_ns == 0 && c->sent < tokens && c->out_to < OUTPUT - 1024);
    if (gap_ns && flush(file) < 0) { c->waits = 1; drop(file); return; }
    int over = c->sent >= tokens;
    if (over) { c->out_to += ending(c->out + c->out_to); c->row = -1; }
    int state = flush(file);
    if (state < 0) { c->row = -1; drop(file); return; }
    if (over || state) return;
    c->due += gap_ns;
    heap_push(file);
}

static void begin(int file) {
    Connection *c = &connections[file];
    if (rows == rows_held) {
        rows_held = rows_held ? 2 * rows_held : 4096;
        log_rows = realloc(log_rows, rows_held * (tokens + 1) * sizeof *log_rows);
    }
    int64_t came_ns = now_ns();
    c->row = rows++;
    memset(log_rows + c->row * (tokens + 1), 0, (tokens + 1) * sizeof *log_rows);
    log_rows[c->row * (tokens + 1)] = came_ns;
    c->sent = 0;
    c->due = came_ns + first_ns;
    memcpy(c->out, HEAD, sizeof HEAD - 1);
    c->out_to = sizeof HEAD - 1;
    if (flush(file) < 0) { c->row = -1; drop(file); return; }
    heap_push(file);
}

static void readable(int file) {
    Connection *c = &connections[file];
    ssize_t n = recv(file, c->input + c->filled, INPUT - 1 - c->filled, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { drop(file); return; }
    c->filled += n;
    c->input[c->filled] = 0;
    char *end = strstr(c->input, "\r\n\r\n");
    if (!end) return;
    char *length = strcasestr(c->input, "content-length:");
    int body = length && length < end ? atoi(length + 15) : 0;
    if (c->filled < end + 4 - c->input + body) return;
    c->filled = 0;
    if (!memcmp(c->input, "GET ", 4)) {
        memcpy(c->out, MODELS, sizeof MODELS - 1);
        c->out_to = sizeof MODELS - 1;
        if (flush(file) < 0) drop(file);
        return;
    }
    begin(file);
}

static void accept_all(int listener) {
    int file;
    while ((file = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int one = 1;
        setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = &connections[file];
        memset(c, 0, sizeof *c);
        c->input = malloc(INPUT);
        c->out = malloc(OUTPUT + 1024);
        c->row = -1;
        struct epoll_event e = {EPOLLIN, {.fd = file}};
        epoll_ctl(poller, EPOLL_CTL_ADD, file, &e);
    }
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    first_ns = atoll(arguments[1]) * 1000;
    gap_ns = atoll(arguments[2]) * 1000;
    tokens = atoi(arguments[3]);
    signal(SIGTERM, stop);
    for (int i = 0; i < CONNECTIONS; i++) connections[i].row = -1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 4096)) return 3;
    getsockname(listener, (struct sockaddr *)&at, &size);
    poller = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.fd = listener}}, ready[1024];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    while (!stopping) {
        int64_t wait_ns = heap_size ? connections[heap[0]].due - now_ns() : 1000000000;
        if (wait_ns < 0) wait_ns = 0;
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        int n = epoll_pwait2(poller, ready, 1024, &wait, NULL);
        for (int i = 0; i < n; i++) {
            int file = ready[i].data.fd;
            if (file == listener) { accept_all(listener); continue; }
            Connection *c = &connections[file];
            if (ready[i].events & EPOLLOUT && c->out_to) {
                int streaming = c->row >= 0, state = flush(file);
                if (state < 0) { drop(file); continue; }
                if (!state && streaming) { c->due += gap_ns; heap_push(file); }
            }
            if (ready[i].events & ~EPOLLOUT) readable(file);
        }
        int64_t t = now_ns();
        for (int budget = 256; budget && heap_size && connections[heap[0]].due <= t; budget--) {
            int file = heap[0];
            heap_pop();
            turn(file);
        }
    }
    FILE *out = fopen(arguments[4], "wb");
    if (!out) return 4;
    fwrite(log_rows, sizeof *log_rows, rows * (tokens + 1), out);
    fclose(out);
    return 0;
}
