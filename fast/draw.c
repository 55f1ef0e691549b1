/* Draws from softmax(h W' + b) in one pass over the columns of W'; fast/categorical.py is the same in torch. The columns stand in
the order of the cumulative sum and are cut into groups. The pass finds the sum of each group's weights; the uniform number picks a
group by the cumulative sum over groups, and that group's weights are computed again to find the column. Logits are in units of
log 2: weights are powers of 2. Each row has a shift, a whole number subtracted from its logits. No row depends on another. */
#include <math.h>
#include <stdint.h>
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 12 }; /* 12 x 2 sums, 2 weights and a state fit into 32 registers, */
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 }; /* and 6 x 2 into 16 */
#else
enum { LANES = 4, ROWS = 6 };
#endif
/* Columns side by side in memory; panels in a group, for the first-level cache; rows that pass together, for the second-level. */
enum { PANEL = 32, MAX_PANELS = 4, CHUNK = 192 };
#define SAFE 100.0f             /* sums of weights below 2^100 are float32 numbers, and weights above 2^-100 normal ones */
#define BELOW_ONE (1 - 0x1p-52) /* keeps a product with a number below 1 below the other factor, in spite of rounding */
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), may_alias));
typedef uint32_t whole __attribute__((vector_size(4 * LANES)));

/* Columns of W' and their biases, in panels: the biases of 32 columns, then their weights for each hidden unit. `bound` is the
largest norm of a column and its bias; `order` has the token of each column, null stands for 0, 1, 2, ... */
typedef struct {
    float *panels;
    const int64_t *order;
    int64_t groups, group_panels, hidden, vocab;
    float bound;
} layer;

static inline vec load(const float *from) { return *(const unaligned *)from; }
static inline void store(vec value, float *to) { *(unaligned *)to = value; }
static inline vec larger(vec a, vec b) { return (vec)(((whole)a & (whole)(a > b)) | ((whole)b & ~(whole)(a > b))); }

/* 2^x for x below 127 with a relative error of 2e-7; 0 where x is below -125 or NaN. */
static inline vec power(vec x) {
    vec low_bits = x + 0x1.8p23f;                 /* holds x, rounded to a whole number, in its lowest bits */
    vec r = x - (low_bits - 0x1.8p23f);           /* -0.5 to 0.5 */
    vec p = ((0x1.5c08e6p-10f * r + 0x1.3d0c52p-7f) * r + 0x1.c6b6e4p-5f) * r + 0x1.ebf918p-3f; /* 2^r: of all polynomials */
    p = (p * r + 0x1.62e428p-1f) * r + 0x1.000002p0f; /* of degree 5 the one with the least relative error, 7.5e-8 */
    return (vec)(((whole)p + ((whole)low_bits << 23)) & (whole)(x > -125.0f));
}
static inline float lane_sum(const quad *parts) {
    quad sum = parts[0];
    for (int i = 1; i < LANES / 4; i++) sum += parts[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Shifted logits of ROWS rows and 2 LANES columns. Not inlined: the caller's constants would take its registers. */
__attribute__((noinline)) static void product(const float *w, int64_t hidden, const float *rows, const float *shifts, vec to[][2]) {
    vec sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = load(w) - shifts[r], sums[r][1] = load(w + LANES) - shifts[r];
    for (int64_t k = 0; k < hidden; k++, rows += ROWS) {
        vec first = load(w += PANEL), second = load(w + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) sums[r][0] += first * rows[r], sums[r][1] += second * rows[r];
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) to[r][0] = sums[r][0], to[r][1] = sums[r][1];
}

/* The sums of a group's weights for ROWS rows. Unless null, `kept` receives the weights, `apart` numbers a row, and `tops` the rows'
largest logits. */
static void group_sums(const layer *w, int64_t group, const float *rows, const float *shifts, float *sums, float *kept, int64_t apart,
                       float *tops) {
    vec totals[ROWS] = {0}, logits[ROWS][2], largest[ROWS];
    kept = kept ? kept + group * w->group_panels * PANEL : 0;
    const float *panel = w->panels + group * w->group_panels * PANEL * (w->hidden + 1);
    for (int r = 0; r < ROWS; r++) largest[r] = (vec){0} - INFINITY;
    for (int64_t p = 0; p < w->group_panels; p++, panel += (w->hidden + 1) * PANEL)
        for (int column = 0; column < PANEL; column += 2 * LANES) {
            product(panel + column, w->hidden, rows, shifts, logits);
            for (int r = 0; r < ROWS; r++) {
                vec first = power(logits[r][0]), second = power(logits[r][1]);
                totals[r] += first + second;
                if (kept) store(first, kept + r * apart + p * PANEL + column), store(second, kept + r * apart + p * PANEL + column + LANES);
            }
            for (int r = 0; tops && r < ROWS; r++) largest[r] = larger(logits[r][0], larger(logits[r][1], largest[r]));
        }
    for (int r = 0; r < ROWS; r++) sums[r] = lane_sum((const quad *)(totals + r));
    for (int r = 0; tops && r < ROWS; r++)
        for (int i = 0; i < LANES; i++) tops[r] = i && tops[r] > largest[r][i] ? tops[r] : largest[r][i];
}

/* The same, where logits of the `careful` rows may be out of range: such a row gets the shift that its largest logit so far needs,
and its sums of earlier groups are divided by the same power of 2. */
static void careful_sums(const layer *w, int64_t group, const float *rows, const int *careful, float *shifts, float *sums, float *kept,
                         int64_t apart) {
    float tops[ROWS]; int any = 0, again = 0;
    for (int r = 0; r < ROWS; r++) any |= careful[r];
    group_sums(w, group, rows, shifts, sums + group * CHUNK, kept, apart, any ? tops : 0);
    for (int r = 0; any && r < ROWS; r++) {
        if (!careful[r] || !isfinite(tops[r]) || (group && tops[r] <= SAFE)) continue;
        const float shift = truncf(tops[r]), half = truncf(shift / 2); /* weights up to 2^100 survive factors below float32's range */
        const float factors[2] = {power((vec){0} - half)[0], power((vec){0} + half - shift)[0]};
        for (int64_t g = 0; g < group; g++) sums[g * CHUNK + r] = sums[g * CHUNK + r] * factors[0] * factors[1];
        for (int64_t i = 0; kept && i < group * w->group_panels * PANEL; i++)
            kept[r * apart + i] = kept[r * apart + i] * factors[0] * factors[1];
        shifts[r] += shift, again = 1;
    }
    if (again) group_sums(w, group, rows, shifts, sums + group * CHUNK, kept, apart, 0);
}

/* The token of a group at which the cumulative sum of a row's weights exceeds a share of their total. */
static int64_t token_inside(const layer *w, int64_t group, const float *row, float shift, double share) {
    vec weights[MAX_PANELS * PANEL / LANES], *logits = weights;
    double totals[MAX_PANELS * PANEL], total = 0;
    int64_t columns = w->group_panels * PANEL, column = group * columns;
    const float *panel = w->panels + column * (w->hidden + 1);
    for (; logits < weights + columns / LANES; logits += PANEL / LANES, panel += (w->hidden + 1) * PANEL) {
        for (int i = 0; i < PANEL / LANES; i++) logits[i] = load(panel + i * LANES) - shift;
        for (int64_t k = 0; k < w->hidden; k++)
            for (int i = 0; i < PANEL / LANES; i++) logits[i] += load(panel + (k + 1) * PANEL + i * LANES) * row[k];
        for (int i = 0; i < PANEL / LANES; i++) logits[i] = power(logits[i]);
    }
    for (int64_t j = 0; j < columns; j++) totals[j] = total += ((const float *)weights)[j];
    for (int64_t j = 0; j < columns; j++) column += totals[j] <= share * total;
    column = column < w->vocab ? column : w->vocab - 1;
    return w->order ? w->order[column] : column;
}

/* Shifts and sums of at most CHUNK rows; the sums of groups stand in `space`, CHUNK x (hidden + groups), after CHUNK x hidden numbers.
Surplus rows, up to a multiple of ROWS, repeat the last one. Unless null, `kept` receives the weights of all, `apart` numbers a row. */
static void chunk_sums(const layer *w, const float *rows, int64_t stride, int64_t count, float *shifts, double *totals, float *kept,
                       int64_t apart, float *space) {
    const int64_t padded = (count + ROWS - 1) / ROWS * ROWS;
    float *packed = space, *sums = space + CHUNK * w->hidden;
    int careful[CHUNK];
    for (int64_t r = 0; r < padded; r++) {
        const float *row = rows + (r < count ? r : count - 1) * stride;
        float squares = 1, *to = packed + r / ROWS * ROWS * w->hidden + r % ROWS;
        for (int64_t k = 0; k < w->hidden; k++) to[k * ROWS] = row[k], squares += row[k] * row[k];
        shifts[r] = 0, careful[r] = !(sqrtf(squares) * w->bound < SAFE); /* also for NaN */
    }
    for (int64_t g = 0; g < w->groups; g++)
        for (int64_t r = 0; r < padded; r += ROWS)
            careful_sums(w, g, packed + r * w->hidden, careful + r, shifts + r, sums + r, kept ? kept + r * apart : 0, apart);
    for (int64_t r = 0; r < padded; r++) totals[r] = 0;
    for (int64_t g = 0; g < w->groups; g++)
        for (int64_t r = 0; r < padded; r++) totals[r] += sums[g * CHUNK + r];
}

/* `draws` tokens a row for at most CHUNK rows and, unless null, the logs of their sums. */
static void draw_chunk(const layer *w, const float *rows, int64_t stride, int64_t count, const double *uniforms, int64_t draws,
                       int64_t *tokens, double *log_sums, float *space) {
    const int64_t padded = (count + ROWS - 1) / ROWS * ROWS;
    const float *sums = space + CHUNK * w->hidden;
    float shifts[CHUNK]; double totals[CHUNK];
    chunk_sums(w, rows, stride, count, shifts, totals, 0, 0, space);
    for (int64_t r = 0; log_sums && r < count; r++) log_sums[r] = (log2(totals[r]) + shifts[r]) * M_LN2;
    for (int64_t d = 0; d < draws; d++) {
        double target[CHUNK] = {0}, running[CHUNK] = {0}, before[CHUNK] = {0}; int64_t group[CHUNK] = {0};
        for (int64_t r = 0; r < count; r++) target[r] = totals[r] * BELOW_ONE * uniforms[r * draws + d];
        for (int64_t g = 0; g < w->groups; g++)
            for (int64_t r = 0; r < padded; r++) { /* all rows at once: the additions of one row wait for each other */
                running[r] += sums[g * CHUNK + r];
                int64_t passed = running[r] <= target[r];
                group[r] += passed, before[r] = passed ? running[r] : before[r];
            }
        for (int64_t r = 0; r < count; r++) {
            int64_t g = group[r] < w->groups ? group[r] : w->groups - 1; /* NaN weights draw some token as well */
            double share = (target[r] - before[r]) / sums[g * CHUNK + r];
            tokens[r * draws + d] = token_inside(w, g, rows + r * stride, shifts[r], (share < 1 ? share : 1) * BELOW_ONE);
        }
    }
}

/* The same for any number of rows, each `stride` numbers after the one before. */
void draw(const layer *w, const float *rows, int64_t stride, int64_t count, const double *uniforms, int64_t draws, int64_t *tokens,
          double *log_sums, float *space) {
    for (int64_t r = 0; r < count; r += CHUNK)
        draw_chunk(w, rows + r * stride, stride, count - r < CHUNK ? count - r : CHUNK, uniforms + r * draws, draws,
                   tokens + r * draws, log_sums ? log_sums + r : log_sums, space);
}
