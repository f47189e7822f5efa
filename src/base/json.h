/* JSON through jansson, with our limits and messages. Values are jansson's (json_t); keys keep their
 * order when written; duplicate keys are refused when read. */
#ifndef HONE_BASE_JSON_H
#define HONE_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

/* Reads one value from exactly `size` bytes. `name` stands in the message: "NAME:LINE: cause".
 * `first_line` is the line number of text[0]. Nesting deeper than 256 is refused. An integer that does not
 * fit into 64 bits becomes a real. */
bool json_read(json_t **out, const char *text, size_t size, const char *name, size_t first_line,
               struct error *err);
bool json_read_file(json_t **out, const char *path, size_t limit, struct error *err);

/* Whether JSON text that reads has an integer that became a real, and so was rounded. */
bool json_has_wide_integer(const char *text, size_t size);

/* A text as a JSON string; where it is no UTF-8, as paths may be, its bytes are escaped as in messages. NULL
 * when out of memory. */
json_t *json_text(const char *text);

/* A real, or null where JSON has none: NaN and infinity. */
json_t *json_number(double number);

/* Building: each takes over `value`. On failure, of this call or of the one that made the value, the
 * container is released and NULL from then on, so that one look at the end tells; json_pack refuses a NULL as
 * well. */
void json_list_add(json_t **list, json_t *value);
void json_object_put(json_t **object, const char *key, json_t *value);

/* Compact text of a value, appended. Reals read back to the same bits. */
bool json_write(const json_t *value, struct buf *out, struct error *err);
bool json_write_file(const json_t *value, const char *path, bool pretty, struct error *err);

#endif
