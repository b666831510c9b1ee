// A streaming server with an exact schedule, faults on demand, and a log of the truth.
//
// truth_server LOG [name=number ...] listens on a free port of 127.0.0.1, prints the port, and prints "began" when the
// load begins. It answers POST with a streamed completion of `max_tokens` tokens. On SIGTERM it writes LOG, one line for
// each POST: came first last tokens status. The first three are ns of CLOCK_MONOTONIC: the kernel's stamp of the request's
// arrival, and the moments before the first and the last token were handed to the kernel (0: never). The delay of this
// process itself is therefore part of the truth. A request whose path ends in ?other is answered, and stands in no log.
//
// The first request of a run is a probe. The load begins with the second one, and times of faults count from there.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

using std::string;

struct Settings {
    double ttft_ms = 50, itl_ms = 10, tokens = 32;
    double sigma = 0;                                  // of a lognormal factor on the time to the first token
    double exponential = 0;                            // 1: the whole service time has an exponential factor
    double drift_per_s = 0;                            // share by which the server slows down, each second
    double warm_s = 0, warm_factor = 1;                // slower by the factor at first, down to 1 after warm_s
    double freeze_at_s = -1, freeze_s = 0;             // nothing is read or sent for so long
    double slots = 0;                                  // requests served at once; the others queue. 0: any number
    double batch_ms = 0;                               // replies advance together, in steps of itl_ms + batch_ms x replies
    double errors = 0;                                 // share of requests answered with status 500
    double usage_factor = 1;                           // what `usage` says of the tokens, as a multiple of the truth
    double prompt_cut = 0;                             // prompts are cut to so many tokens
    double reply_share = 1;                            // replies end early, at this share of `max_tokens`
    double buffered = 0;                               // 1: a proxy holds the reply back until it is complete
    double chunk_tokens = 1;                           // tokens that leave together
    double page = 0;                                   // 1: /metrics is a page of Prometheus
    double seed = 1;
};

struct Request { int64_t came = 0, first = 0, last = 0; int tokens = 0, status = 0; bool other = false; };

struct Connection {
    int file;
    string input, output;
    int64_t came = 0, due = 0, service = 0;            // service: ns from its start to the first token
    int left = 0, prompt_tokens = 0;
    double slower = 1;
    size_t request = 0;
    unsigned turn = 0;                                 // timers of earlier replies are void
    bool busy = false, waits = false, wants_output = false;
};

struct Timer {
    int64_t due; int file; unsigned turn;
    bool operator<(const Timer &other) const { return due > other.due; }
};

static Settings set;
static std::vector<Request> requests;
static std::unordered_map<int, std::unique_ptr<Connection>> connections;
static std::priority_queue<Timer> timers;
static std::deque<std::pair<int, unsigned>> queue_of_waiting;
static std::mt19937_64 source;
static int poller, serving, waiting;
static int64_t began, step_end, prompt_total, token_total, finished_total;
static volatile sig_atomic_t stopping;

static void stop(int) { stopping = 1; }
static int64_t ns(const timespec &t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }
static int64_t clock_ns(clockid_t clock) { timespec t; clock_gettime(clock, &t); return ns(t); }
static int64_t now() { return clock_ns(CLOCK_MONOTONIC); }
static int64_t of_ms(double ms) { return int64_t(ms * 1e6); }
static double uniform() { return std::uniform_real_distribution<>(0, 1)(source); }

static void flush(Connection &c) {
    while (!c.output.empty()) {
        ssize_t n = send(c.file, c.output.data(), c.output.size(), MSG_NOSIGNAL);
        if (n <= 0) break;
        c.output.erase(0, size_t(n));
    }
    if (c.output.empty() == !c.wants_output) return;
    c.wants_output = !c.wants_output;
    epoll_event e{};
    e.events = EPOLLIN | (c.wants_output ? EPOLLOUT : 0u);
    e.data.fd = c.file;
    epoll_ctl(poller, EPOLL_CTL_MOD, c.file, &e);
}

static void add_chunk(string &to, const string &body) {
    char size[16];
    snprintf(size, sizeof size, "%zx\r\n", body.size());
    to += size + body + "\r\n";
}

static void answer(Connection &c, const char *status, const char *type, const string &body) {
    c.output += string("HTTP/1.1 ") + status + "\r\ncontent-type: " + type + "\r\ncontent-length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body;
    flush(c);
}

// Where replies advance together, the end of the step that is under way at t.
static int64_t step_after(int64_t t) {
    const int64_t length = of_ms(set.itl_ms + set.batch_ms * std::max(1, serving));
    if (step_end + length < t) step_end = t;           // nothing was served for a while
    while (step_end <= t) step_end += length;
    return step_end;
}

static void schedule(Connection &c, int64_t due) {
    c.due = due;
    timers.push({due, c.file, c.turn});
}

static void serve(Connection &c, int64_t from) {
    serving++;
    schedule(c, from + c.service);
}

static void serve_waiting() {
    while (!queue_of_waiting.empty() && serving < int(set.slots)) {
        auto [file, turn] = queue_of_waiting.front();
        queue_of_waiting.pop_front();
        auto found = connections.find(file);
        if (found == connections.end() || found->second->turn != turn || !found->second->waits) continue;
        found->second->waits = false;
        waiting--;
        serve(*found->second, now());
    }
}

static void end(Connection &c) {
    c.busy = false;
    c.turn++;
    (c.waits ? waiting : serving)--;
    c.waits = false;
    if (set.slots > 0) serve_waiting();
}

static void drop(int file) {
    auto found = connections.find(file);
    if (found->second->busy) end(*found->second);
    close(file);
    connections.erase(found);
}

static string event(const string &text, bool last) {
    return "data: {\"id\":\"truth\",\"object\":\"text_completion\",\"created\":1,\"model\":\"truth\",\"choices\":[{\"index\":0,"
           "\"text\":\"" + text + "\",\"finish_reason\":" + (last ? "\"length\"" : "null") + "}]}\n\n";
}

static void send_tokens(Connection &c) {
    Request &r = requests[c.request];
    const int n = set.buffered ? c.left : std::min(c.left, int(set.chunk_tokens));
    string text;
    for (int i = 0; i < n; i++) text += " token";
    c.left -= n;
    r.tokens += n;
    token_total += n;
    const bool last = c.left == 0;
    add_chunk(c.output, event(text, last));
    if (last) {
        const int said = int(std::lround(r.tokens * set.usage_factor));
        add_chunk(c.output, "data: {\"id\":\"truth\",\"object\":\"text_completion\",\"created\":1,\"model\":\"truth\",\"choices\":[],"
                            "\"usage\":{\"prompt_tokens\":" + std::to_string(c.prompt_tokens) + ",\"completion_tokens\":" +
                            std::to_string(said) + ",\"total_tokens\":" + std::to_string(said + c.prompt_tokens) + "}}\n\n");
        add_chunk(c.output, "data: [DONE]\n\n");
        c.output += "0\r\n\r\n";
        finished_total++;
    }
    r.last = now();
    if (!r.first) r.first = r.last;
    flush(c);
    if (last) end(c);
    else schedule(c, set.batch_ms > 0 ? step_after(c.due) : c.due + of_ms(set.itl_ms * c.slower * n));
}

// How many times slower than its settings the server is at t.
static double slowness(int64_t t) {
    const double s = began ? double(t - began) / 1e9 : 0;
    double factor = 1 + set.drift_per_s * s;
    if (set.warm_s > 0 && s < set.warm_s) factor *= 1 + (set.warm_factor - 1) * (1 - s / set.warm_s);
    return factor;
}

static int number_after(const string &body, const char *key, int otherwise) {
    const size_t at = body.find(key);
    const int n = at == string::npos ? 0 : atoi(body.c_str() + at + strlen(key));
    return n > 0 ? n : otherwise;
}

// About four letters of a prompt are a token.
static int prompt_tokens_of(const string &body) {
    const size_t key = body.find("\"prompt\":");
    if (key == string::npos) return 1;
    const size_t from = body.find('"', key + 9) + 1;
    size_t to = from;
    while (to < body.size() && (body[to] != '"' || body[to - 1] == '\\')) to++;
    const int n = std::max(1, int((to - from + 2) / 4));
    return set.prompt_cut > 0 ? std::min(n, int(set.prompt_cut)) : n;
}

static void begin(Connection &c, const string &head, const string &body) {
    const int64_t t = now();
    Request r;
    r.came = c.came ? c.came : t;
    r.other = head.find("?other") < head.find("\r\n");
    if (requests.size() == 1) {
        began = step_end = t;
        puts("began");
        fflush(stdout);
    }
    const bool fails = !requests.empty() && uniform() < set.errors;
    r.status = fails ? 500 : 200;
    c.request = requests.size();
    requests.push_back(r);
    if (fails) return answer(c, "500 Internal Server Error", "application/json", "{\"error\":{\"message\":\"out of luck\"}}");
    const int wanted = number_after(body, "\"max_tokens\":", int(set.tokens));
    c.left = std::max(1, int(wanted * set.reply_share));
    c.prompt_tokens = prompt_tokens_of(body);
    prompt_total += c.prompt_tokens;
    c.slower = slowness(t);
    if (set.exponential) c.slower *= std::exponential_distribution<>(1)(source);
    double first_ms = set.ttft_ms * c.slower;
    if (set.sigma > 0) first_ms *= std::exp(set.sigma * std::normal_distribution<>()(source));
    if (set.buffered) first_ms += (c.left - 1) * set.itl_ms * c.slower;
    c.service = of_ms(first_ms);
    c.busy = true;
    c.turn++;
    c.output += "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    if (!set.buffered) flush(c);
    c.waits = set.slots > 0 && serving >= int(set.slots);
    if (!c.waits) return serve(c, t);
    waiting++;
    queue_of_waiting.push_back({c.file, c.turn});
}

static string page() {
    char text[768];
    snprintf(text, sizeof text,
             "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} %d\n"
             "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} %d\n"
             "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{engine=\"0\"} %lld\n"
             "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{engine=\"0\"} %lld\n"
             "# TYPE vllm:request_success_total counter\n"
             "vllm:request_success_total{engine=\"0\",finished_reason=\"length\"} %lld\n",
             serving, waiting, (long long)prompt_total, (long long)token_total, (long long)finished_total);
    return text;
}

static void get(Connection &c, const string &head) {
    if (head.find("/v1/models") < head.find("\r\n"))
        answer(c, "200 OK", "application/json",
               "{\"object\":\"list\",\"data\":[{\"id\":\"truth\",\"object\":\"model\",\"created\":1,\"owned_by\":\"truth\","
               "\"max_model_len\":32768}]}");
    else if (head.find("/metrics") < head.find("\r\n") && set.page)
        answer(c, "200 OK", "text/plain; version=0.0.4", page());
    else if (head.find("/health") < head.find("\r\n"))
        answer(c, "200 OK", "application/json", "{\"status\":\"ok\"}");
    else
        answer(c, "404 Not Found", "application/json", "{\"error\":{\"message\":\"no such page\"}}");
}

// Takes what has arrived; false where the other side has closed. The stamp is of the last byte, as `sent` of a client is.
static bool take(Connection &c) {
    for (;;) {
        char bytes[65536], control[256];
        iovec into{bytes, sizeof bytes};
        msghdr message{};
        message.msg_iov = &into;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t n = recvmsg(c.file, &message, 0);
        if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
        for (cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
            if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SO_TIMESTAMPNS) continue;
            timespec stamp;
            memcpy(&stamp, CMSG_DATA(h), sizeof stamp);
            c.came = ns(stamp) - clock_ns(CLOCK_REALTIME) + now();
        }
        c.input.append(bytes, size_t(n));
    }
}

static void readable(int file) {
    Connection &c = *connections.at(file);
    const bool open = take(c);
    while (!c.busy) {
        const size_t head_end = c.input.find("\r\n\r\n");
        if (head_end == string::npos) break;
        const string head = c.input.substr(0, head_end + 2);
        string lower = head;
        std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char x) { return tolower(x); });
        const size_t length = size_t(number_after(lower, "content-length:", 0));
        if (c.input.size() < head_end + 4 + length) break;
        const string body = c.input.substr(head_end + 4, length);
        c.input.erase(0, head_end + 4 + length);
        if (head.compare(0, 4, "POST") == 0) begin(c, head, body);
        else get(c, head);
    }
    if (!open) drop(file);
}

static void accept_all(int listener) {
    int file, one = 1;
    while ((file = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
        setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(file, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
        auto c = std::make_unique<Connection>();
        c->file = file;
        connections[file] = std::move(c);
        epoll_event e{};
        e.events = EPOLLIN;
        e.data.fd = file;
        epoll_ctl(poller, EPOLL_CTL_ADD, file, &e);
    }
}

static void send_due() {
    const int64_t t = now();
    for (int most = 256; most && !timers.empty() && timers.top().due <= t; most--) {
        const Timer timer = timers.top();
        timers.pop();
        auto found = connections.find(timer.file);
        if (found != connections.end() && found->second->busy && found->second->turn == timer.turn)
            send_tokens(*found->second);
    }
}

static void freeze_if_due() {
    const int64_t from = began + of_ms(1e3 * set.freeze_at_s), until = from + of_ms(1e3 * set.freeze_s);
    if (set.freeze_at_s < 0 || !began || now() < from) return;
    while (now() < until && !stopping) {
        const int64_t left = until - now();
        timespec wait{time_t(left / 1000000000), long(left % 1000000000)};
        if (left > 0) nanosleep(&wait, nullptr);
    }
    set.freeze_at_s = -1;
}

static int listen_on_a_free_port() {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);  // the kernel stamps from the first packet on
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    if (bind(listener, (sockaddr *)&at, size) || listen(listener, 4096)) return -1;
    getsockname(listener, (sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return listener;
}

static bool read_settings(int count, char **arguments) {
    const std::map<string, double *> known = {
        {"ttft_ms", &set.ttft_ms}, {"itl_ms", &set.itl_ms}, {"tokens", &set.tokens}, {"sigma", &set.sigma},
        {"exponential", &set.exponential}, {"drift_per_s", &set.drift_per_s}, {"warm_s", &set.warm_s},
        {"warm_factor", &set.warm_factor}, {"freeze_at_s", &set.freeze_at_s}, {"freeze_s", &set.freeze_s},
        {"slots", &set.slots}, {"batch_ms", &set.batch_ms}, {"errors", &set.errors}, {"usage_factor", &set.usage_factor},
        {"prompt_cut", &set.prompt_cut}, {"reply_share", &set.reply_share}, {"buffered", &set.buffered},
        {"chunk_tokens", &set.chunk_tokens}, {"page", &set.page}, {"seed", &set.seed}};
    for (int i = 2; i < count; i++) {
        const string given = arguments[i];
        const size_t equals = given.find('=');
        const auto found = known.find(given.substr(0, equals));
        if (equals == string::npos || found == known.end()) {
            fprintf(stderr, "unknown setting: %s\n", arguments[i]);
            return false;
        }
        *found->second = atof(given.c_str() + equals + 1);
    }
    return count > 1;
}

static int write_log(const char *path) {
    FILE *out = fopen(path, "w");
    if (!out) return 4;
    for (const Request &r : requests)
        if (!r.other)
            fprintf(out, "%lld %lld %lld %d %d\n", (long long)r.came, (long long)r.first, (long long)r.last, r.tokens, r.status);
    return fclose(out) ? 4 : 0;
}

int main(int count, char **arguments) {
    if (!read_settings(count, arguments)) return 2;
    source.seed(uint64_t(set.seed));
    signal(SIGTERM, stop);
    const int listener = listen_on_a_free_port();
    if (listener < 0) return 3;
    poller = epoll_create1(0);
    epoll_event e{}, ready[1024];
    e.events = EPOLLIN;
    e.data.fd = listener;
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    while (!stopping) {
        int64_t wait_ns = timers.empty() ? 1000000000 : timers.top().due - now();
        wait_ns = std::clamp<int64_t>(wait_ns, 0, 1000000000);
        timespec wait{time_t(wait_ns / 1000000000), long(wait_ns % 1000000000)};
        const int n = epoll_pwait2(poller, ready, 1024, &wait, nullptr);
        freeze_if_due();
        for (int i = 0; i < n; i++) {
            const int file = ready[i].data.fd;
            if (file == listener) { accept_all(listener); continue; }
            if (ready[i].events & EPOLLOUT) flush(*connections.at(file));
            if (ready[i].events & ~unsigned(EPOLLOUT)) readable(file);
        }
        send_due();
    }
    return write_log(arguments[1]);
}
