#include "engine/onlooker.h"

#include "engine/inm.h"

static int go_on(void *opaque, struct err *err)
{
	(void)opaque;
	(void)err;
	return 0;
}

static int begin_listening(void *opaque, bool takes_back, struct err *err)
{
	(void)takes_back;
	return go_on(opaque, err);
}

static void say_nothing(void *opaque)
{
	(void)opaque;
}

void onlooker_begin(struct inm *inm)
{
	inm->opts.looking = true;
}

void onlooker_options(struct options *opts)
{
	opts->caps |= 1u << CAP_RETURN_PATH | 1u << CAP_POSTCOPY_RAM | 1u << CAP_DIRTY_BITMAPS | 1u << CAP_XBZRLE |
	              1u << CAP_COMPRESS;
	/* Their connections were others. */
	opts->caps &= ~(1u << CAP_MULTIFD | 1u << CAP_POSTCOPY_PREEMPT);
}

void onlooker_ops(struct load_ops *ops)
{
	ops->switch_memory = go_on;
	ops->await_channels = go_on;
	ops->listen = begin_listening;
	ops->take_over = go_on;
	ops->pledge = go_on;
	ops->check_alive = go_on;
	ops->run = say_nothing;
	ops->await_pages = go_on;
	ops->resume = go_on;
}
