#include "base/locale.h"

#include <locale.h>
#include <stddef.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

bool locale_enter(struct locale *out) {
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    out->plain = plain;
    if (plain) out->callers = uselocale(plain);
    return plain;
}

void locale_leave(struct locale *locale) {
    if (!locale->plain) return;
    uselocale(locale->callers);
    freelocale(locale->plain);
    locale->plain = NULL;
}

void locale_to_caller(const struct locale *locale) { uselocale(locale->callers); }

void locale_from_caller(struct locale *locale) { locale->callers = uselocale(locale->plain); }
