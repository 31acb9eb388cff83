/* The loops in which the mixer spends its time. Mono, float32, 48 kHz; mixer/kernel.py tells what each is for.
 *
 * The same bits come out on every machine and of every compiler: no operation is left to the compiler's choice of order
 * (sums have four lanes of their own, and kernel.py forbids it to fuse a product with a sum).
 */
#include <stdint.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t bits __attribute__((may_alias)); /* of a float: those of magnitudes are in the same order */

enum {
    HOP = 4800, /* 100 ms */
    QUARTER = HOP / 4,
    FORTIETH = QUARTER / 10,
    NEAR_LAGS = 9,
    FAR_LAGS = 41,
    STEP = 48, /* 1 ms */
    STEPS = 1000,
    PHASES = 4,
    TAPS = 12, /* BS.1770-4 Annex 2 */
    FIRST = TAPS / 2 - 2, /* of a point's samples, two before it and two behind it are these and the next three */
    MAX_PACKET = 5760 /* 120 ms */
};

typedef int32_t (*decode_float)(void *decoder, const uint8_t *packet, int32_t size, float *pcm, int32_t ticks, int32_t fec);

/* Packets in a row, each decoded behind the other, as many as `room` is sure to hold; how many that were. */
int64_t decode_row(decode_float decode, void *decoder, const uint8_t *packets, const int32_t *sizes,
                   const int32_t *ticks, int64_t count, float *pcm, int64_t room, int64_t *written, int64_t *broken)
{
    int64_t at = 0, done = 0;
    *broken = 0;
    for (; done < count && room - at >= MAX_PACKET; done++) {
        int32_t got = sizes[done] > 0 ? decode(decoder, packets, sizes[done], pcm + at, MAX_PACKET, 0) : -1;
        if (got < 0) {
            ++*broken;
            got = ticks[done];
            if (decode(decoder, 0, 0, pcm + at, got, 0) != got)
                memset(pcm + at, 0, sizeof(float) * (size_t)got);
        }
        packets += sizes[done];
        at += got;
    }
    *written = at;
    return done;
}

static float dot(const float *one, const float *other, int count)
{
    lanes sums[4] = {{0}, {0}, {0}, {0}};
    int at = 0;
    for (; at + 16 <= count; at += 16)
        for (int part = 0; part < 4; part++)
            sums[part] += *(const lanes *)(one + at + 4 * part) * *(const lanes *)(other + at + 4 * part);
    lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (; at < count; at++)
        total += one[at] * other[at];
    return total;
}

/* Sums of the samples' squares, and of what they have in common with themselves some samples later, by hops. */
void hop_powers(const float *samples, int64_t hops, double whole, const double *near, const double *far, double *powers)
{
    float quarter[QUARTER + NEAR_LAGS], fortieth[FORTIETH + FAR_LAGS];
    for (int64_t hop = 0; hop < hops; hop++, samples += HOP) {
        for (int at = 0; at < QUARTER; at++)
            quarter[at] = (samples[4 * at] + samples[4 * at + 1]) + (samples[4 * at + 2] + samples[4 * at + 3]);
        memcpy(quarter + QUARTER, quarter, sizeof(float) * NEAR_LAGS); /* a hop is followed by itself */
        for (int at = 0; at < FORTIETH; at++) {
            float sum = quarter[10 * at];
            for (int more = 1; more < 10; more++)
                sum += quarter[10 * at + more];
            fortieth[at] = sum;
        }
        memcpy(fortieth + FORTIETH, fortieth, sizeof(float) * FAR_LAGS);
        double power = whole * (double)dot(samples, samples, HOP);
        for (int lag = 0; lag < NEAR_LAGS; lag++)
            power += near[lag] * (double)dot(quarter, quarter + lag, QUARTER);
        for (int lag = 0; lag < FAR_LAGS; lag++)
            power += far[lag] * (double)dot(fortieth, fortieth + lag, FORTIETH);
        powers[hop] = power > 0 ? power / HOP : 0;
    }
}

/* The mean of powers, of those above `share` of it, and again of those: `gates` times. */
double gated_mean(const double *powers, int64_t count, double share, int32_t gates)
{
    double least = -1, mean = 0;
    for (int32_t gate = 0; gate <= gates; gate++) {
        double sum = 0;
        int64_t heard = 0;
        for (int64_t at = 0; at < count; at++)
            if (powers[at] > least) {
                sum += powers[at];
                heard++;
            }
        mean = heard ? sum / (double)heard : 0;
        least = mean * share > least ? mean * share : least;
    }
    return mean;
}

/* Samples with a gain that runs straight from `first` by `step` a sample, added to a sum. */
void add(const float *samples, float *sum, int64_t count, float first, float step)
{
    for (int64_t at = 0; at < count; at++)
        sum[at] += samples[at] * (first + (float)(int32_t)at * step);
}

static float magnitude(float value)
{
    return value < 0 ? -value : value;
}

static float largest(const float *samples, int count)
{
    const bits *all = (const bits *)samples;
    bits found = 0;
    for (int at = 0; at < count; at++) {
        bits one = all[at] & 0x7fffffff;
        found = one > found ? one : found;
    }
    float value;
    memcpy(&value, &found, sizeof value);
    return value;
}

/* The largest magnitude between two samples, of all phases. */
static float between(const float *samples, const float *phases)
{
    float found = 0;
    for (int phase = 0; phase < PHASES; phase++, phases += TAPS) {
        lanes sum = *(const lanes *)samples * *(const lanes *)phases;
        sum += *(const lanes *)(samples + 4) * *(const lanes *)(phases + 4);
        sum += *(const lanes *)(samples + 8) * *(const lanes *)(phases + 8);
        float value = magnitude((sum[0] + sum[1]) + (sum[2] + sum[3]));
        found = value > found ? value : found;
    }
    return found;
}

/* The true peak of every step of a frame that stands behind TAPS - 1 samples, 0 where it is sure to be under `safe`;
 * the largest magnitude of all these samples. */
float step_peaks(const float *flat, const float *phases, float safe, float *peaks)
{
    float all = largest(flat, TAPS - 1);
    for (int step = 0; step < STEPS; step++, flat += STEP) {
        float own = largest(flat + TAPS - 1, STEP), peak = own > safe ? own : 0;
        all = own > all ? own : all;
        if (own > safe || largest(flat + FIRST, TAPS - 1 - FIRST) > safe)
            for (int at = 0; at < STEP; at++)
                if (largest(flat + at + FIRST, 4) > safe) {
                    float point = between(flat + at, phases);
                    peak = point > peak ? point : peak;
                }
        peaks[step] = peak;
    }
    return all;
}

/* A frame turned down: gains at the ends of its steps, in place. */
void turn_down(float *samples, const float *gains)
{
    for (int step = 0; step < STEPS; step++, samples += STEP) {
        float first = gains[step], more = gains[step + 1] - first;
        if (first < 1 || gains[step + 1] < 1)
            for (int at = 0; at < STEP; at++)
                samples[at] *= first + more * ((float)at / STEP);
    }
}

static float clipped(float value)
{
    value = value > -1 ? value : -1;
    return value < 1 ? value : 1;
}

/* To the nearest integer: what is added and taken away again leaves no room for a fraction. */
void to_int16(const float *samples, int16_t *pcm, int64_t count)
{
    const float room = 12582912.0f; /* 1.5 * 2^23 */
    for (int64_t at = 0; at < count; at++)
        pcm[at] = (int16_t)(int32_t)((clipped(samples[at]) * 32767.0f + room) - room);
}

/* The same, 24 bits in the upper part of 32. */
void to_int24(const float *samples, int32_t *pcm, int64_t count)
{
    const double room = 6755399441055744.0; /* 1.5 * 2^52 */
    for (int64_t at = 0; at < count; at++)
        pcm[at] = (int32_t)(((double)(clipped(samples[at]) * 8388607.0f) + room) - room) * 256;
}
