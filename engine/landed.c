#include "engine/landed.h"

#include "base/err.h"
#include "engine/incoming.h"
#include "postcopy/settle.h"

int landed_check(const struct inm *inm, struct err *err)
{
	int e = multifd_check_whole(&inm->multifd, err);

	if (e == 0 && inm->postcopy.listening)
		e = settle_check(&inm->postcopy, err);
	return e < 0 ? err_up(err, e, "the guest has not landed") : 0;
}
