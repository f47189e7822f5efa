/* The page around the charts: style, tiles, tables. Every text that passes here is escaped. */
#ifndef HONE_JOB_REPORT_PAGE_H
#define HONE_JOB_REPORT_PAGE_H

#include "base/buf.h"

/* Text as HTML: control and bidirectional characters shown, markup escaped. */
void page_text(struct buf *out, const char *text);

void page_open(struct buf *out, const char *title, const char *state);
void page_close(struct buf *out, const char *made_by);
/* A row of figures with their names. */
void page_tiles_open(struct buf *out);
void page_tile(struct buf *out, const char *name, const char *figure, const char *beside);
void page_tiles_close(struct buf *out);
/* A frame with a heading; charts stand in the first kind, side by side where there is room. */
void page_grid_open(struct buf *out);
void page_grid_close(struct buf *out);
void page_box_open(struct buf *out, const char *heading, bool wide);
void page_box_close(struct buf *out);
void page_table_open(struct buf *out, const char *const *heads, int count);
void page_row(struct buf *out, const char *const *cells, int count);
void page_table_close(struct buf *out);

#endif
