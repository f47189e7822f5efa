/* Chat templates that go by a name (--chat-template NAME), for models that come without one. */
#ifndef HONE_TEXT_TEMPLATE_NAMES_H
#define HONE_TEXT_TEMPLATE_NAMES_H

#include <stddef.h>

/* The template's source, or NULL when no template has this name. */
const char *template_by_name(const char *name);
/* The name at `index`, for lists in messages; NULL behind the last. */
const char *template_name_at(size_t index);

#endif
