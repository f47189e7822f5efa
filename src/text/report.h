/* What `hone data check|stats|preview` tells, as JSON values. Text from the data stands in them as it
 * is: whoever shows it escapes it (data_preview_text does). */
#ifndef HONE_TEXT_REPORT_H
#define HONE_TEXT_REPORT_H

#include "text/example.h"

/* Is the data fit to train on? {"files","container","layout","evidence","digest","rows","bad_rows",
 * "problems":[{"file","line","cause"}] (the first 100),"empty_answers","duplicates","overlap" (rows of
 * `valid` that stand in `data` too, null without `valid`)} and, with a renderer, "over_length",
 * "untrained", "tool_calls_ignored" (rows with trained tool calls that the template leaves out; with any,
 * "tool_calls_ignored_first":{"file","line"}); rows that its template refuses are bad ones, and become
 * problems of `data`. `valid` and `renderer` may be NULL. */
bool data_report_check(json_t **out, struct dataset *data, const struct dataset *valid,
                       const struct renderer *renderer, struct error *err);

/* The same counts and "tokens": {"min","p50","p90","p99","max","mean","total","supervised",
 * "histogram":[{"up_to","rows"}]} of the examples before anything is cut. */
bool data_report_stats(json_t **out, struct dataset *data, const struct dataset *valid,
                       const struct renderer *renderer, struct error *err);

/* The first hundred problems, as the check tells them. New reference. */
json_t *data_problems_json(const struct dataset *data);

/* {"examples":[{"row","file","line","text","trained":[[first,end]…] (bytes),"ids","starts","flags"}]} of
 * `count` rows from `first` on. Without tokenizer: no ids, starts and flags. Bad rows are left out with
 * `skip_bad_rows`, and refused without. */
bool data_report_preview(json_t **out, struct dataset *data, const struct renderer *renderer, size_t first,
                         size_t count, bool skip_bad_rows, struct error *err);

/* A preview for a terminal: the texts, escaped, what is trained in colour or in ⟦ ⟧. */
bool data_preview_text(const json_t *preview, bool colour, struct buf *out, struct error *err);

#endif
