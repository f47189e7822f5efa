/* Content of a message: text, or a list of parts, [{"type":"text","text":…}, …]. Templates of models that see
 * read parts, some of them nothing else; most others read text alone. A row keeps what it was given; a
 * template gets the form that it reads, which a few renderings of made up conversations show. */
#ifndef HONE_TEXT_EXAMPLE_CONTENT_H
#define HONE_TEXT_EXAMPLE_CONTENT_H

#include "text/example.h"

/* The text of content in either form, new reference; NULL when out of memory. Content of another kind is no
 * text: "". */
json_t *content_text(const json_t *content);
bool content_is_blank(const json_t *content);
/* A text as content in parts, new reference; NULL when out of memory. */
json_t *content_parts(const json_t *text);
/* What the renderer's template gets for the content of a message of this role, new reference; NULL when out
 * of memory. */
json_t *content_shown(const struct content_forms *forms, const char *role, const json_t *content);

#endif
