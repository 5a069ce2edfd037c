#include "engine/landed.h"

#include "base/err.h"
#include "engine/ram/multifd.h"
#include "postcopy/postcopy.h"
#include "postcopy/settle.h"

int landed_check(const struct multifd *m, const struct postcopy *pc, struct err *err)
{
	int e = multifd_check_whole(m, err);

	if (e == 0 && pc->listening)
		e = settle_check(pc, err);
	return e < 0 ? err_up(err, e, "the guest has not landed") : 0;
}
