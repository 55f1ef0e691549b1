/* An LSTM over whole sequences, as training reads them, and its gradients; nn.LSTM of torch is the same. No sequence depends on
another. */

/* Letters: B sequences, T steps, E inputs, H hidden units. `read` has what each step reads, (B, T, 1 + E + H): a 1, the inputs, and the
hidden state before it, of which the first is given. `gates`, in torch's order i, f, g, o, and their gradients before the sigmoid or
tanh are (B, T, 4, H); `cells`, `states` and the gradient of the states (B, T, H). `weights` are a cell's (lstm.c), `recurrent` are
torch's, (4H, H). lstm_forward writes all but the first third of `read`, gates, cells and states; lstm_backward writes
`gate_gradients`, and of `space` takes PANELS(H) x 4H x GATES numbers, and 2 x STEP_ROWS x H for each share. */
typedef struct {
    const float *weights, *recurrent;
    float *read, *gates, *cells, *states;
    const float *gradient;
    float *gate_gradients, *space;
    int64_t inputs, hidden, sequences, length;
} lstm;

#define PANELS(hidden) (((hidden) + GATES - 1) / GATES) /* of recurrent weights, GATES columns wide */

/* The first `count` numbers of a vector, or all. */
static inline vec load_part(const float *from, int64_t count) {
    vec value = {0};
    if (count >= LANES) return load(from);
    memcpy(&value, from, 4 * count);
    return value;
}
static inline void store_part(vec value, float *to, int64_t count) {
    if (count >= LANES) store(value, to);
    else memcpy(to, &value, 4 * count);
}
static inline vec tanh_of(vec x) { return 2 * sigmoid(x * 0x1.715476p1f) - 1; } /* 2 / log 2 */

/* Steps `t` of up to STEP_ROWS sequences from `first` on; the surplus ones repeat the last. */
static void forward_step(const lstm *l, int64_t first, int64_t rows, int64_t t) {
    const int64_t hidden = l->hidden, numbers = 1 + l->inputs + hidden;
    const float *read[STEP_ROWS];
    for (int r = 0; r < STEP_ROWS; r++) read[r] = l->read + ((first + (r < rows ? r : rows - 1)) * l->length + t) * numbers;
    for (int64_t unit = 0; unit < hidden; unit += LANES) {
        const int64_t left = hidden - unit;
        vec sums[STEP_ROWS][4] = {0};
        add_products(l->weights + unit / UNITS * numbers * GATES + unit % UNITS, numbers, read, sums);
        for (int r = 0; r < rows; r++) {
            const int64_t at = (first + r) * l->length + t;
            const vec i = sigmoid(sums[r][0]), f = sigmoid(sums[r][1]), o = sigmoid(sums[r][2]), g = 2 * sigmoid(sums[r][3]) - 1;
            const vec before = t ? load_part(l->cells + (at - 1) * hidden + unit, left) : (vec){0};
            const vec cell = f * before + i * g;
            const vec zero = 0 * (sums[r][0] + sums[r][1] + sums[r][2] + sums[r][3]); /* NaN if a gate is not finite */
            const vec state = o * tanh_of(cell) + zero;
            float *gates = l->gates + at * 4 * hidden + unit;
            store_part(i, gates, left), store_part(f, gates + hidden, left);
            store_part(g, gates + 2 * hidden, left), store_part(o, gates + 3 * hidden, left);
            store_part(cell, l->cells + at * hidden + unit, left), store_part(state, l->states + at * hidden + unit, left);
            if (t + 1 < l->length) store_part(state, l->read + (at + 2) * numbers - hidden + unit, left);
        }
    }
}

/* The gradients of one step's gates, for one sequence; those of its state and cell through the next step are given and replaced. */
static void gate_gradients(const lstm *l, int64_t at, int64_t t, const float *of_state, float *of_cell) {
    const int64_t hidden = l->hidden;
    const float *gates = l->gates + at * 4 * hidden;
    float *to = l->gate_gradients + at * 4 * hidden;
    for (int64_t unit = 0; unit < hidden; unit += LANES, gates += LANES, to += LANES) {
        const int64_t left = hidden - unit;
        const vec i = load_part(gates, left), f = load_part(gates + hidden, left);
        const vec g = load_part(gates + 2 * hidden, left), o = load_part(gates + 3 * hidden, left);
        const vec before = t ? load_part(l->cells + (at - 1) * hidden + unit, left) : (vec){0};
        const vec tanh_of_cell = tanh_of(load_part(l->cells + at * hidden + unit, left));
        const vec state = load_part(l->gradient + at * hidden + unit, left) + load_part(of_state + unit, left);
        const vec cell = load_part(of_cell + unit, left) + state * o * (1 - tanh_of_cell * tanh_of_cell);
        store_part(cell * g * i * (1 - i), to, left), store_part(cell * before * f * (1 - f), to + hidden, left);
        store_part(cell * i * (1 - g * g), to + 2 * hidden, left), store_part(state * tanh_of_cell * o * (1 - o), to + 3 * hidden, left);
        store_part(cell * f, of_cell + unit, left);
    }
}

/* The gradients of up to STEP_ROWS states: those of the gates that read them times `packed`, PANELS(hidden) of (4 hidden, GATES). */
static void state_gradients(const float *packed, int64_t hidden, const float *const gates[], int64_t rows, float *to) {
    for (int64_t panel = 0; panel < PANELS(hidden); panel++, packed += 4 * hidden * GATES)
        for (int64_t part = 0; part < UNITS; part += LANES) {
            vec sums[STEP_ROWS][4] = {0};
            add_products(packed + part, 4 * hidden, gates, sums);
            for (int r = 0; r < rows; r++)
                for (int k = 0; k < 4; k++) {
                    const int64_t unit = panel * GATES + k * UNITS + part;
                    if (unit < hidden) store_part(sums[r][k], to + r * hidden + unit, hidden - unit);
                }
        }
}

static void forward_share(void *given, int64_t share, int64_t shares) {
    const lstm *l = given;
    const int64_t blocks = (l->sequences + STEP_ROWS - 1) / STEP_ROWS;
    for (int64_t first = blocks * share / shares * STEP_ROWS; first < blocks * (share + 1) / shares * STEP_ROWS; first += STEP_ROWS)
        for (int64_t t = 0; t < l->length; t++)
            forward_step(l, first, l->sequences - first < STEP_ROWS ? l->sequences - first : STEP_ROWS, t);
}

static void backward_share(void *given, int64_t share, int64_t shares) {
    const lstm *l = given;
    const int64_t hidden = l->hidden, blocks = (l->sequences + STEP_ROWS - 1) / STEP_ROWS;
    float *of_states = l->space + 4 * hidden * PANELS(hidden) * GATES + share * 2 * STEP_ROWS * hidden;
    float *of_cells = of_states + STEP_ROWS * hidden;
    for (int64_t first = blocks * share / shares * STEP_ROWS; first < blocks * (share + 1) / shares * STEP_ROWS; first += STEP_ROWS) {
        const int64_t rows = l->sequences - first < STEP_ROWS ? l->sequences - first : STEP_ROWS;
        memset(of_states, 0, sizeof(float) * 2 * STEP_ROWS * hidden);
        for (int64_t t = l->length - 1; t >= 0; t--) {
            const float *gates[STEP_ROWS];
            for (int r = 0; r < STEP_ROWS; r++) {
                const int64_t row = r < rows ? r : rows - 1, at = (first + row) * l->length + t;
                if (r < rows) gate_gradients(l, at, t, of_states + r * hidden, of_cells + r * hidden);
                gates[r] = l->gate_gradients + at * 4 * hidden;
            }
            if (t) state_gradients(l->space, hidden, gates, rows, of_states);
        }
    }
}

void lstm_forward(lstm *l, int64_t threads) { share_out(forward_share, l, threads); }
void lstm_backward(lstm *l, int64_t threads) {
    for (int64_t k = 0; k < 4 * l->hidden; k++)
        for (int64_t j = 0; j < PANELS(l->hidden) * GATES; j++)
            l->space[(j / GATES * 4 * l->hidden + k) * GATES + j % GATES] = j < l->hidden ? l->recurrent[k * l->hidden + j] : 0;
    share_out(backward_share, l, threads);
}
