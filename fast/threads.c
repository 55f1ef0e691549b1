/* One function for several threads: it is called with the number of each share of its work, as many shares as threads. */
typedef void (*work)(void *given, int64_t share, int64_t shares);
typedef struct {
    work function;
    void *given;
    int64_t shares, next;
} shared_work;

/* `GOMP_parallel` of the OpenMP library that torch has loaded: it calls a function on several threads, which wait for work from torch
anyway. Null where that library has none, and after a fork, which its threads do not survive; then one thread does all. */
typedef void (*team)(void (*)(void *), void *, unsigned, unsigned);
static team torchs_team = 0;
void use_team(team of_torch) { torchs_team = of_torch; }

static void take_shares(void *given) {
    shared_work *all = given;
    for (int64_t share; (share = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->shares;)
        all->function(all->given, share, all->shares);
}

static void share_out(work function, void *given, int64_t threads) {
    shared_work all = {function, given, threads, 0};
    if (torchs_team && threads > 1) torchs_team(take_shares, &all, threads, 0);
    else take_shares(&all);
}
