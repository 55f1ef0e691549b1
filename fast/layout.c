/* Weights in the order in which the other files read them. */
#define NO_WEIGHT -1e30f /* the bias of surplus columns */

/* The larger of two numbers; NaN counts as larger than all. */
static inline float larger_number(float a, float b) { return a == a && !(b <= a) ? b : a; }

/* The panels of a layer, from weights (vocab, hidden) and biases times `scale`; `bounds` has one number for each panel. */
typedef struct {
    const layer *to;
    const float *weights, *biases;
    float scale, *bounds;
} layout;

static void lay_out_share(void *given, int64_t share, int64_t shares) {
    const layout *l = given;
    const layer *w = l->to;
    const int64_t panels = w->groups * w->group_panels;
    for (int64_t p = panels * share / shares; p < panels * (share + 1) / shares; p++) {
        float *panel = w->panels + p * PANEL * (w->hidden + 1), squares[PANEL] = {0};
        const int64_t left = w->vocab - p * PANEL, columns = left < 0 ? 0 : left < PANEL ? left : PANEL;
        for (int64_t c = 0; c < PANEL; c++) {
            const int64_t token = c >= columns ? 0 : w->order ? w->order[p * PANEL + c] : p * PANEL + c;
            const float scale = c < columns ? l->scale : 0, *from = l->weights + token * w->hidden;
            panel[c] = c < columns ? l->biases[token] * scale : NO_WEIGHT;
            for (int64_t k = 0; k < w->hidden; k++) panel[(k + 1) * PANEL + c] = c < columns ? from[k] * scale : 0;
        }
        for (int64_t k = 0; k <= w->hidden; k++)
            for (int c = 0; c < PANEL; c++) squares[c] += panel[k * PANEL + c] * panel[k * PANEL + c];
        l->bounds[p] = 0;
        for (int64_t c = 0; c < columns; c++) l->bounds[p] = larger_number(l->bounds[p], sqrtf(squares[c]));
    }
}

/* Fills the panels of a layer and sets its bound; `space` has a number for each panel. */
void lay_out(layer *w, const float *weights, const float *biases, float scale, float *space, int64_t threads) {
    layout l = {w, weights, biases, scale, space};
    share_out(lay_out_share, &l, threads);
    w->bound = 0;
    for (int64_t p = 0; p < w->groups * w->group_panels; p++) w->bound = larger_number(w->bound, space[p]);
}

/* The weights of a `cell` from torch's, (4 hidden, inputs) and (4 hidden, hidden), and two biases; torch's gates are i, f, g, o. */
void lay_out_cell(float *to, const float *input_weights, const float *recurrent, const float *biases, const float *other_biases,
                  int64_t inputs, int64_t hidden) {
    static const int64_t gates[4] = {0, 1, 3, 2};
    for (int64_t first = 0; first < hidden; first += UNITS)
        for (int64_t k = 0; k <= inputs + hidden; k++)
            for (int64_t g = 0; g < 4; g++)
                for (int64_t unit = first; unit < first + UNITS; unit++) {
                    const int64_t row = gates[g] * hidden + unit;
                    const float scale = g == 3 ? 2 / M_LN2 : 1 / M_LN2; /* tanh(x) = 2 sigmoid(2x) - 1 */
                    if (unit >= hidden) *to++ = 0;
                    else if (!k) *to++ = scale * (biases[row] + other_biases[row]);
                    else if (k <= inputs) *to++ = scale * input_weights[row * inputs + k - 1];
                    else *to++ = scale * recurrent[row * hidden + k - 1 - inputs];
                }
}
