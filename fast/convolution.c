/* Convolutions over time with ReLU and the largest response of each filter, as in a text CNN, and their gradients. All of a filter's
gradient comes from one window of each sequence, that of its largest response, where a product with all windows would mostly add up
zeros. discriminator.py is the same in torch. No number depends on the shares of the work. */
enum { WINDOWS = LANES == 16 ? 8 : 4 }; /* 8 x 2 sums, 2 weights and a number fit into 32 registers, 4 x 2 into 16 */
typedef uint32_t unaligned_whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Filters of one width, and what they find in `sequences` of `length` embedded tokens, (sequences, length, inputs). Each filter has a
row of inputs x width weights, and a column in features, places (the first token of its window) and their gradients, (sequences,
stride). convolve reads the first three pointers and writes features and places; convolution_gradients reads those and `gradient`, and
writes the last three. */
typedef struct {
    const float *weights, *biases, *embedded;
    float *features;
    uint32_t *places;
    const float *gradient;
    float *weight_gradient, *bias_gradient, *embedded_gradient;
    int64_t filters, width, sequences, length, inputs, stride;
} convolution;

/* Responses of WINDOWS windows to 2 LANES filters. Not inlined: the caller's constants would take its registers. */
__attribute__((noinline)) static void respond(const float *panel, int64_t size, const float *const windows[], vec to[][2]) {
    vec sums[WINDOWS][2] = {0};
    for (int64_t k = 0; k < size; k++, panel += PANEL) {
        vec first = load(panel), second = load(panel + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < WINDOWS; r++) sums[r][0] += first * windows[r][k], sums[r][1] += second * windows[r][k];
    }
#pragma GCC unroll 8
    for (int r = 0; r < WINDOWS; r++) to[r][0] = sums[r][0], to[r][1] = sums[r][1];
}

/* Keeps the larger of each response and the largest so far, with its place; NaN counts as larger than all. */
static inline void keep_larger(vec response, uint32_t place, float *largest, uint32_t *places) {
    whole before = *(const unaligned_whole *)largest, at = *(const unaligned_whole *)places;
    whole now = (whole)(response > (vec)before) | (whole)(response != response);
    *(unaligned_whole *)largest = ((whole)response & now) | (before & ~now);
    *(unaligned_whole *)places = (now & place) | (at & ~now);
}

/* Features and places of at most PANEL filters from `first` on; `space` as below. */
static void convolve_panel(const convolution *c, int64_t first, float *space) {
    const int64_t size = c->inputs * c->width, windows = c->length - c->width + 1, all = c->sequences * windows;
    const int64_t filters = c->filters - first < PANEL ? c->filters - first : PANEL;
    float *panel = space, *largest = panel + size * PANEL;
    uint32_t *places = (uint32_t *)(largest + c->sequences * PANEL);
    memset(panel, 0, filters < PANEL ? sizeof(float) * size * PANEL : 0);
    for (int64_t f = 0; f < filters; f++) /* in a window the inputs of a token stand side by side, in a filter the places of an input */
        for (int64_t i = 0; i < c->inputs; i++)
            for (int64_t j = 0; j < c->width; j++)
                panel[(j * c->inputs + i) * PANEL + f] = c->weights[(first + f) * size + i * c->width + j];
    for (int64_t i = 0; i < c->sequences * PANEL; i++) largest[i] = -INFINITY, places[i] = 0;
    for (int64_t column = 0; column < filters; column += 2 * LANES)
        for (int64_t start = 0; start < all; start += WINDOWS) {
            const float *rows[WINDOWS];
            vec responses[WINDOWS][2];
            for (int r = 0; r < WINDOWS; r++) { /* the surplus ones repeat the last */
                int64_t window = start + r < all ? start + r : all - 1;
                rows[r] = c->embedded + (window / windows * c->length + window % windows) * c->inputs;
            }
            respond(panel + column, size, rows, responses);
            for (int r = 0; r < WINDOWS && start + r < all; r++) {
                int64_t at = (start + r) / windows * PANEL + column, place = (start + r) % windows;
                keep_larger(responses[r][0], place, largest + at, places + at);
                keep_larger(responses[r][1], place, largest + at + LANES, places + at + LANES);
            }
        }
    for (int64_t s = 0; s < c->sequences; s++)
        for (int64_t f = 0; f < filters; f++) {
            float value = largest[s * PANEL + f] + c->biases[first + f];
            c->features[s * c->stride + first + f] = value < 0 ? 0 : value;
            c->places[s * c->stride + first + f] = places[s * PANEL + f];
        }
}

/* to += share * from */
static void add(float *restrict to, const float *restrict from, float share, int64_t count) {
    for (int64_t k = 0; k < count; k++) to[k] += share * from[k];
}

/* Gradients of the weights and biases of at most PANEL filters from `first` on. */
static void weight_gradients(const convolution *c, int64_t first, float *space) {
    const int64_t size = c->inputs * c->width, last = c->filters - first < PANEL ? c->filters : first + PANEL;
    for (int64_t f = first; f < last; f++) {
        for (int64_t k = 0; k < size; k++) space[k] = 0;
        c->bias_gradient[f] = 0;
        for (int64_t s = 0; s < c->sequences; s++) {
            const int64_t at = s * c->stride + f;
            if (c->features[at] <= 0) continue;
            c->bias_gradient[f] += c->gradient[at];
            add(space, c->embedded + (s * c->length + c->places[at]) * c->inputs, c->gradient[at], size);
        }
        for (int64_t i = 0; i < c->inputs; i++)
            for (int64_t j = 0; j < c->width; j++) c->weight_gradient[f * size + i * c->width + j] = space[j * c->inputs + i];
    }
}

/* Adds to the gradients of the embedded tokens of the sequences from `first` to `last`. */
static void add_input_gradients(const convolution *c, int64_t first, int64_t last, float *space) {
    const int64_t size = c->inputs * c->width;
    for (int64_t f = 0; f < c->filters; f++) {
        for (int64_t i = 0; i < c->inputs; i++)
            for (int64_t j = 0; j < c->width; j++) space[j * c->inputs + i] = c->weights[f * size + i * c->width + j];
        for (int64_t s = first; s < last; s++) {
            const int64_t at = s * c->stride + f;
            if (c->features[at] <= 0) continue;
            add(c->embedded_gradient + (s * c->length + c->places[at]) * c->inputs, space, c->gradient[at], size);
        }
    }
}

/* All kinds of filters; of `space` each share has `apart` numbers, PANEL x (2 x sequences + inputs x width of the widest). */
typedef struct {
    const convolution *kinds;
    int64_t number, apart;
    float *space;
} convolutions;

static void convolve_share(void *given, int64_t share, int64_t shares) {
    const convolutions *all = given;
    int64_t panel = 0;
    for (const convolution *c = all->kinds; c < all->kinds + all->number; c++)
        for (int64_t first = 0; first < c->filters; first += PANEL)
            if (panel++ % shares == share) convolve_panel(c, first, all->space + share * all->apart);
}

static void gradients_share(void *given, int64_t share, int64_t shares) {
    const convolutions *all = given;
    float *space = all->space + share * all->apart;
    int64_t panel = 0;
    for (const convolution *c = all->kinds; c < all->kinds + all->number; c++) {
        for (int64_t first = 0; first < c->filters; first += PANEL)
            if (panel++ % shares == share) weight_gradients(c, first, space);
        add_input_gradients(c, c->sequences * share / shares, c->sequences * (share + 1) / shares, space);
    }
}

/* The features and places. */
void convolve(convolutions *all, int64_t threads) { share_out(convolve_share, all, threads); }

/* All gradients; the embedded tokens' are added to what is there. */
void convolution_gradients(convolutions *all, int64_t threads) { share_out(gradients_share, all, threads); }
