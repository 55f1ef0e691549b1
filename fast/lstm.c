/* Draws the rest of sequences: for each position one step of an LSTM, then a draw from its output layer. No row depends on another,
so that neither threads nor the size of a call change a token. fast/decoder.py is the same in torch. Gates are in units of log 2
(the candidate's twice as large), as logits are in draw.c. */
#include <string.h>
enum { UNITS = 16, GATES = 4 * UNITS, STEP_ROWS = LANES == 16 ? 6 : 3 }; /* 6 x 4 sums fit into 32 registers, 3 x 4 into 16 */

/* The hidden units stand in blocks of 16. A block has rows of its 4 gates i, f, o, g: the biases, then the weights of each number of
the embedding, then those of each hidden unit. */
typedef struct {
    const float *weights, *embedding;
    int64_t inputs, hidden, end_token;
} cell;

/* Adds to the gates the products of `count` rows of weights with the numbers of STEP_ROWS rows. */
__attribute__((noinline)) static void add_products(const float *w, int64_t count, const float *const rows[], vec sums[][4]) {
    vec to[STEP_ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < STEP_ROWS; r++)
        for (int g = 0; g < 4; g++) to[r][g] = sums[r][g];
    for (int64_t k = 0; k < count; k++, w += GATES)
#pragma GCC unroll 6
        for (int r = 0; r < STEP_ROWS; r++)
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) to[r][g] += load(w + g * UNITS) * rows[r][k];
#pragma GCC unroll 6
    for (int r = 0; r < STEP_ROWS; r++)
        for (int g = 0; g < 4; g++) sums[r][g] = to[r][g];
}

/* 1 / (1 + 2^-x); 0 where x is NaN: sequences of such a model are drawn, and its training ends (lstm_gradients.c) */
static inline vec sigmoid(vec x) { return 1.0f / (1.0f + power((vec){0} - larger(x, (vec){0} - 126.0f))); }

/* One step of `count` rows: reads a token a row, and updates h, `stride` numbers a row, and the cells in place. */
static void step(const cell *c, const int64_t *tokens, float *h, int64_t stride, float *cells, int64_t count, float *fresh) {
    for (int64_t first = 0; first < count; first += STEP_ROWS) {
        const float *words[STEP_ROWS], *states[STEP_ROWS];
        int64_t rows = count - first < STEP_ROWS ? count - first : STEP_ROWS;
        for (int r = 0; r < STEP_ROWS; r++) { /* the surplus rows repeat the last one */
            int64_t row = first + (r < rows ? r : rows - 1);
            words[r] = c->embedding + tokens[row] * c->inputs, states[r] = h + row * stride;
        }
        for (int64_t unit = 0; unit < c->hidden; unit += LANES) {
            const float *w = c->weights + unit / UNITS * (1 + c->inputs + c->hidden) * GATES + unit % UNITS;
            const int64_t units = c->hidden - unit < LANES ? c->hidden - unit : LANES;
            vec sums[STEP_ROWS][4];
            for (int r = 0; r < STEP_ROWS; r++)
                for (int g = 0; g < 4; g++) sums[r][g] = load(w + g * UNITS);
            add_products(w + GATES, c->inputs, words, sums);
            add_products(w + (1 + c->inputs) * GATES, c->hidden, states, sums);
            for (int r = 0; r < rows; r++) {
                vec value = {0};
                float *at = cells + (first + r) * c->hidden + unit;
                memcpy(&value, at, 4 * units);
                value = sigmoid(sums[r][1]) * value + sigmoid(sums[r][0]) * (2 * sigmoid(sums[r][3]) - 1);
                memcpy(at, &value, 4 * units);
                value = sigmoid(sums[r][2]) * (2 * sigmoid(value * 0x1.715476p1f) - 1); /* 2 / log 2 */
                memcpy(fresh + r * c->hidden + unit, &value, 4 * units);
            }
        }
        for (int r = 0; r < rows; r++) memcpy(h + (first + r) * stride, fresh + r * c->hidden, 4 * c->hidden);
    }
}

/* Fills the columns of `tokens`, (count, length), from `first` on. `last` has the tokens before them; h and the cells are those before
`last` is read. Of `uniforms` each position has a row, `apart` numbers after the one before. After the end token only that one
follows; the token before position 0 ends nothing. `space` holds CHUNK x (hidden + groups) and STEP_ROWS x hidden numbers. */
void finish(const layer *w, const cell *c, float *h, int64_t stride, float *cells, int64_t count, int64_t *tokens, int64_t length,
            int64_t first, const int64_t *last, const double *uniforms, int64_t apart, float *space) {
    for (int64_t start = 0; start < count; start += CHUNK) {
        int64_t rows = count - start < CHUNK ? count - start : CHUNK, now[CHUNK], drawn[CHUNK];
        for (int64_t r = 0; r < rows; r++) now[r] = last[start + r];
        for (int64_t t = first; t < length; t++) {
            float *own = h + start * stride;
            step(c, now, own, stride, cells + start * c->hidden, rows, space + CHUNK * (w->hidden + w->groups));
            draw_chunk(w, own, stride, rows, uniforms + (t - first) * apart + start, 1, drawn, 0, space);
            for (int64_t r = 0; r < rows; r++) {
                now[r] = t && now[r] == c->end_token ? now[r] : drawn[r];
                tokens[(start + r) * length + t] = now[r];
            }
        }
    }
}
