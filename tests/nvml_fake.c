/* A stand-in for libnvidia-ml.so.1, for tests: the entry points that pynvml looks up, with a truth that tests choose.
 *
 * Its state are words `key=value`, taken from the variable HARNESS_FAKE_NVML when the library is initialised and from
 * fake_set() at any time. Power is constant, so energy is known exactly: power times the time since the counter began,
 * brought up to date every tick_ns as real counters are. Time is the monotonic clock, or `now_ns` where that is set.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, FUNCTION_NOT_FOUND = 13, LOST = 15 };
enum { POWER_INSTANT = 186, SM = 1, VALUE_UNSIGNED = 1, MOST_PROCESSES = 16 };

typedef void *device;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilisation;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
typedef union { double d; unsigned u; unsigned long long ull; } value;
typedef struct { uint32_t field, scope; int64_t stamp, latency; unsigned type; int result; value value; } field_value;

static long long gpus = 1, power_mw = 300000, begun_ns = 0, start_mj = 5000000, tick_ns = 20000000, now_ns = -1;
static long long reset_ns = -1, lost = 0, lost_ns = -1, total = 85899345920LL, used = 8589934592LL, reserved = 536870912LL;
static long long gpu_percent = 73, memory_percent = 41, sm_mhz = 1980, memory_mhz = 2619, celsius = 55, reasons = 0;
static long long capability = 90, limit_mw = 700000, mig = -1;
static long long busy = -1, idle_mw = 70000; /* the one GPU that works, where not all do; what each of the others draws */
static char without[512] = "", older[512] = "", processes[512] = "", lost_when[512] = "";

static struct { const char *key; long long *number; char *text; } known[] = {
    {"gpus", &gpus, 0}, {"power_mw", &power_mw, 0}, {"begun_ns", &begun_ns, 0}, {"start_mj", &start_mj, 0},
    {"tick_ns", &tick_ns, 0}, {"now_ns", &now_ns, 0}, {"reset_ns", &reset_ns, 0}, {"lost", &lost, 0},
    {"lost_ns", &lost_ns, 0}, {"total", &total, 0}, {"used", &used, 0}, {"reserved", &reserved, 0},
    {"gpu_percent", &gpu_percent, 0}, {"memory_percent", &memory_percent, 0}, {"sm_mhz", &sm_mhz, 0},
    {"memory_mhz", &memory_mhz, 0}, {"celsius", &celsius, 0}, {"reasons", &reasons, 0}, {"capability", &capability, 0},
    {"limit_mw", &limit_mw, 0}, {"mig", &mig, 0}, {"busy", &busy, 0},
    {"idle_mw", &idle_mw, 0}, {"without", 0, without}, {"older", 0, older},
    {"processes", 0, processes}, {"lost_when", 0, lost_when},
};

void fake_set(const char *words) {
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *rest = 0, *word = strtok_r(copy, " ", &rest); word; word = strtok_r(0, " ", &rest)) {
        char *equals = strchr(word, '=');
        if (!equals) continue;
        *equals = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (strcmp(known[i].key, word)) continue;
            if (known[i].number) *known[i].number = strtoll(equals + 1, 0, 0);
            else snprintf(known[i].text, 512, "%s", equals + 1);
        }
    }
}

static long long now(void) {
    struct timespec spec;
    if (now_ns >= 0) return now_ns;
    clock_gettime(CLOCK_MONOTONIC, &spec);
    return spec.tv_sec * 1000000000LL + spec.tv_nsec;
}

/* What a device call answers before it looks at its arguments. `without` names calls that this GPU lacks, `older` those
 * that this driver does not know. */
static int ready(const char *call) {
    char between[600], wanted[128];
    snprintf(between, sizeof between, ",%s,", without);
    snprintf(wanted, sizeof wanted, ",%s,", call);
    if (strstr(between, wanted)) return NOT_SUPPORTED;
    snprintf(between, sizeof between, ",%s,", older);
    if (strstr(between, wanted)) return FUNCTION_NOT_FOUND;
    if (*lost_when && !access(lost_when, F_OK)) return LOST; /* once that file exists */
    return lost || (lost_ns >= 0 && now() >= lost_ns) ? LOST : OK;
}

static int idle(device d) { return busy >= 0 && (long long)(uintptr_t)d - 1 != busy; }
static long long power(device d) { return idle(d) ? idle_mw : power_mw; }
static long long held(device d) { return idle(d) ? reserved : used; }

#define ASK(call) do { int refusal = ready(call); if (refusal) return refusal; } while (0)
#define GIVE(call, type, what) int call(device d, type *out) { (void)d; ASK(#call); *out = (type)(what); return OK; }
#define GIVE_OF(call, type, what) \
    int call(device d, unsigned of, type *out) { (void)d; (void)of; ASK(#call); *out = (type)(what); return OK; }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (getenv("HARNESS_FAKE_NVML")) fake_set(getenv("HARNESS_FAKE_NVML"));
    return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the fake"; }
int nvmlSystemGetDriverVersion(char *out, unsigned length) { snprintf(out, length, "999.1"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = 13010; return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)gpus; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
    if (index >= gpus) return INVALID_ARGUMENT;
    *out = (device)(uintptr_t)(index + 1);
    return OK;
}
int nvmlDeviceGetName(device d, char *out, unsigned length) {
    ASK("nvmlDeviceGetName");
    snprintf(out, length, "Fake GPU %u", (unsigned)(uintptr_t)d - 1);
    return OK;
}
int nvmlDeviceGetUUID(device d, char *out, unsigned length) {
    ASK("nvmlDeviceGetUUID");
    snprintf(out, length, "GPU-fake-%u", (unsigned)(uintptr_t)d - 1);
    return OK;
}

GIVE(nvmlDeviceGetPowerUsage, unsigned, power(d))
GIVE(nvmlDeviceGetEnforcedPowerLimit, unsigned, limit_mw)
GIVE(nvmlDeviceGetPowerManagementLimit, unsigned, limit_mw)
GIVE(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, limit_mw)
GIVE(nvmlDeviceGetPersistenceMode, unsigned, 1)
GIVE(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 4)
GIVE(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
GIVE(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
GIVE(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
GIVE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, reasons)
GIVE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, reasons)
GIVE_OF(nvmlDeviceGetClockInfo, unsigned, of == SM ? sm_mhz : memory_mhz)
GIVE_OF(nvmlDeviceGetMaxClockInfo, unsigned, of == SM ? sm_mhz : memory_mhz)
GIVE_OF(nvmlDeviceGetTemperature, unsigned, celsius)

int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *out) {
    ASK("nvmlDeviceGetTotalEnergyConsumption");
    long long since = now() - begun_ns, from = start_mj;
    if (reset_ns >= 0 && now() >= reset_ns) since = now() - reset_ns, from = 0;
    since -= since % tick_ns;
    *out = (unsigned long long)(from + (long long)((double)power(d) * (double)since / 1e9));
    return OK;
}
int nvmlDeviceGetFieldValues(device d, int count, field_value *out) {
    ASK("nvmlDeviceGetFieldValues");
    for (int i = 0; i < count; i++) {
        out[i].result = out[i].field == POWER_INSTANT ? ready("NVML_FI_DEV_POWER_INSTANT") : NOT_SUPPORTED;
        out[i].type = VALUE_UNSIGNED;
        out[i].value.u = (unsigned)power(d);
    }
    return OK;
}
int nvmlDeviceGetMemoryInfo(device d, memory_v1 *out) {
    ASK("nvmlDeviceGetMemoryInfo");
    out->total = total, out->free = total - held(d), out->used = held(d);
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(device d, memory_v2 *out) {
    ASK("nvmlDeviceGetMemoryInfo_v2");
    out->total = total, out->free = total - held(d), out->reserved = reserved, out->used = held(d) - reserved;
    return OK;
}
int nvmlDeviceGetUtilizationRates(device d, utilisation *out) {
    ASK("nvmlDeviceGetUtilizationRates");
    out->gpu = idle(d) ? 0 : (unsigned)gpu_percent, out->memory = idle(d) ? 0 : (unsigned)memory_percent;
    return OK;
}
int nvmlDeviceGetEccMode(device d, unsigned *current, unsigned *pending) {
    (void)d;
    ASK("nvmlDeviceGetEccMode");
    *current = *pending = 1;
    return OK;
}
int nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
    (void)d;
    ASK("nvmlDeviceGetMigMode");
    if (mig < 0) return NOT_SUPPORTED;
    *current = *pending = (unsigned)mig;
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) {
    (void)d;
    ASK("nvmlDeviceGetCudaComputeCapability");
    *major = (int)capability / 10, *minor = (int)capability % 10;
    return OK;
}
/* processes=PID:BYTES,PID:na; of the busy GPU */
int nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *count, process *out) {
    ASK("nvmlDeviceGetComputeRunningProcesses");
    process found[MOST_PROCESSES];
    unsigned n = 0;
    char copy[512];
    snprintf(copy, sizeof copy, "%s", idle(d) ? "" : processes);
    for (char *rest = 0, *one = strtok_r(copy, ",", &rest); one && n < MOST_PROCESSES; one = strtok_r(0, ",", &rest)) {
        char *colon = strchr(one, ':');
        memset(&found[n], 0, sizeof found[n]);
        found[n].pid = (unsigned)strtoul(one, 0, 10);
        found[n].used = colon && !strcmp(colon + 1, "na") ? ~0ULL : colon ? strtoull(colon + 1, 0, 10) : 0;
        n++;
    }
    if (n > 0 && (!out || *count < n)) { *count = n; return INSUFFICIENT_SIZE; }
    for (unsigned i = 0; i < n; i++) out[i] = found[i];
    *count = n;
    return OK;
}
