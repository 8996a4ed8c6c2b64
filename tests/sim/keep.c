/* What agent/replica does for the image: cuts in sequence, a manifest only when the image is durable, an install that
 * swaps the state in. */
#include "agent/base/assert.h"
#include "tests/sim/sim.h"

#define RETRY_MS 300

static void install_step(struct sim *s, struct sim_event *e);

/* ---- checkpoints ---- */

static void answer_durable(struct server *v)
{
    struct checkpoint *c = &v->checkpoint;
    if (c->has_durable_wait && v->image.counters.applied >= c->durable_index) {
        c->has_durable_wait = false;
        hw_consensus_durable(v->consensus);
    }
}

static void checkpoint_kick(struct server *v);

static void on_written(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, checkpoint.write);
    struct checkpoint *c = &v->checkpoint;
    if (c->is_failing) {
        s->stats.image_errors++;
        sim_after(s, &c->timer, RETRY_MS, v->at, "checkpoint timer", c->timer.fire);
        return;
    }
    image_apply(&v->image, c->cut);
    hw_cut_free(c->cut);
    c->cut = NULL;
    s->stats.checkpoints++;
    sim_trace(s, v->at, "checkpoint", v->image.counters.applied, v->image.counters.hash);
    answer_durable(v);
    if (c->has_durable_wait) {
        checkpoint_kick(v);
    }
    server_turn(v);
}

static void checkpoint_kick(struct server *v)
{
    struct checkpoint *c = &v->checkpoint;
    if (c->write.is_set || c->is_suspended) {
        return;
    }
    if (c->cut == NULL && hw_hot_applied(v->hot) > v->image.counters.applied) {
        int rc = hw_hot_cut(v->hot, &c->cut);
        hw_assert(rc == 0);
    }
    if (c->cut != NULL) {
        sim_after(v->sim, &c->write, sim_below(v->sim, v->sim->image_latency_ms + 1), v->at, "image written",
                  on_written);
    }
}

static void on_checkpoint_timer(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, checkpoint.timer);
    answer_durable(v);
    checkpoint_kick(v);
    sim_after(s, e, s->checkpoint_ms, v->at, "checkpoint timer", on_checkpoint_timer);
    server_turn(v);
}

void keep_durable(struct server *v, uint64_t index)
{
    if (v->sim->options->canary == CANARY_DURABLE) {
        hw_consensus_durable(v->consensus);
        return;
    }
    v->checkpoint.has_durable_wait = true;
    v->checkpoint.durable_index = index;
    sim_after(v->sim, &v->checkpoint.timer, 0, v->at, "checkpoint timer", on_checkpoint_timer);
}

/* ---- installs ---- */

void keep_install(struct server *v, uint64_t index)
{
    struct install *t = &v->install;
    sim_trace(v->sim, v->at, "install wanted", index, hw_hot_applied(v->hot));
    if (index <= hw_hot_applied(v->hot)) {
        keep_durable(v, index); /* our image is ahead of our log */
        return;
    }
    t->is_wanted = true;
    t->is_copying = false;
    t->is_installed = false;
    t->index = index;
    sim_after(v->sim, &t->event, 1, v->at, "install", install_step);
}

static void pick_source(struct server *v)
{
    struct sim *s = v->sim;
    struct install *t = &v->install;
    unsigned at = (unsigned)sim_below(s, s->server_count);
    struct server *from = &s->servers[at];
    if (from == v || !from->is_up || !net_is_connected(s, v->at, at)) {
        return;
    }
    if (from->image.counters.applied < t->index) {
        checkpoint_kick(from);
        return;
    }
    image_copy(&t->incoming, &from->image);
    t->source = at;
    t->source_life = from->life;
    t->is_copying = true;
}

static void install_finish(struct server *v)
{
    struct install *t = &v->install;
    struct image old = v->image;
    t->loaded = image_load(v->sim, &t->incoming);
    if (t->loaded == NULL) {
        return;
    }
    v->image = t->incoming; /* a rename: the old one or the new one, never neither */
    image_init(&t->incoming);
    image_free(&old);
    t->is_copying = false;
    t->is_installed = true;
    sim_trace(v->sim, v->at, "image installed", v->image.counters.applied, v->image.counters.hash);
    hw_consensus_durable(v->consensus);
}

static void install_step(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, install.event);
    struct install *t = &v->install;
    uint64_t again_ms = RETRY_MS;
    if (!t->is_copying) {
        pick_source(v);
        again_ms = t->is_copying ? sim_between(s, 5, 400) : RETRY_MS;
    } else if (s->servers[t->source].life != t->source_life || !s->servers[t->source].is_up ||
               !net_is_connected(s, v->at, t->source)) {
        s->stats.install_breaks++;
        t->is_copying = false;
    } else if (v->checkpoint.write.is_set) {
        v->checkpoint.is_suspended = true;
        again_ms = 10;
    } else {
        v->checkpoint.is_suspended = true;
        install_finish(v);
        server_turn(v);
        return;
    }
    sim_after(s, e, again_ms, v->at, "install", install_step);
}

void keep_swap(struct server *v)
{
    struct install *t = &v->install;
    hw_assert(t->loaded != NULL);
    hw_hot_free(v->hot);
    v->hot = t->loaded;
    t->loaded = NULL;
    t->is_installed = false;
    t->is_wanted = false;
    hw_cut_free(v->checkpoint.cut); /* of the state that was replaced */
    v->checkpoint.cut = NULL;
    v->checkpoint.is_suspended = false;
    v->sim->stats.installs++;
    check_state(v, "after an install");
}

/* ---- life ---- */

void keep_start(struct server *v)
{
    v->checkpoint = (struct checkpoint){0};
    v->install = (struct install){0};
    image_init(&v->install.incoming);
    sim_after(v->sim, &v->checkpoint.timer, v->sim->checkpoint_ms, v->at, "checkpoint timer", on_checkpoint_timer);
}

void keep_crash(struct server *v)
{
    struct checkpoint *c = &v->checkpoint;
    if (c->write.is_set && !c->is_failing && sim_chance(v->sim, 50)) {
        image_apply(&v->image, c->cut); /* the transaction made it */
    }
    sim_cancel(v->sim, &c->timer);
    sim_cancel(v->sim, &c->write);
    sim_cancel(v->sim, &v->install.event);
    hw_cut_free(c->cut);
    hw_hot_free(v->install.loaded);
    image_free(&v->install.incoming);
    c->cut = NULL;
    v->install.loaded = NULL;
}
