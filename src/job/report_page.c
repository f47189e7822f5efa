#include "job/report_page.h"

#include <string.h>

#include "base/text.h"

/* Colours of series and classes, in the order of Observable's categorical scheme, which stays apart for most
 * colour-blind readers and on both grounds. */
static const char style[] =
    ":root{color-scheme:light dark;--ground:#f6f7f9;--box:#fff;--edge:#dfe3e8;--text:#1c2128;--soft:#5c6773;"
    "--grid:#e6e9ed;--c0:#4269d0;--c1:#ff725c;--c2:#efb118;--c3:#3ca951;--c4:#a463f2;--c5:#6cc5b0;"
    "--c6:#9c6b4e}\n"
    "@media(prefers-color-scheme:dark){:root{--ground:#0f1318;--box:#181d24;--edge:#2b323b;--text:#e8ebef;"
    "--soft:#9aa5b1;--grid:#262d36;--c0:#7b9bf0;--c1:#ff8b78;--c2:#f2c14b;--c3:#5cc270;--c4:#ba8cf7;"
    "--c5:#7fd4c0;--c6:#b98a6d}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--text);"
    "font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "main{max-width:1360px;margin:0 auto;padding:28px 24px 40px}h1{font-size:26px;margin:0 0 2px}"
    "h2{font-size:16px;margin:0 0 8px}header p{margin:0;color:var(--soft)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}"
    ".tile,.box{background:var(--box);border:1px solid var(--edge);border-radius:10px}"
    ".tile{padding:12px 14px}.tile b{display:block;font-size:21px;font-weight:600;"
    "font-variant-numeric:tabular-nums}.tile span,.tile i{color:var(--soft);font-size:13px;font-style:normal;"
    "display:block}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,540px),1fr));gap:16px}"
    ".box{padding:16px 18px;min-width:0;overflow-x:auto}.wide{grid-column:1/-1}\n"
    "svg{display:block;width:100%;min-width:460px;height:auto}svg text{fill:var(--soft);font-size:12px}"
    "svg .label{font-size:12px}svg .legend,svg .name{fill:var(--text)}svg .legend{font-size:11px}"
    ".grid line,.grid path{vector-effect:non-scaling-stroke}svg line.grid{stroke:var(--grid)}"
    "svg line.axis{stroke:var(--soft)}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ".band{stroke:none;fill-opacity:.22}.area{stroke:none}svg line.phase{stroke:var(--text);"
    "stroke-dasharray:2 3;stroke-opacity:.5}svg line.level{stroke:var(--text);stroke-dasharray:7 4}"
    "svg line.second{stroke:var(--c1)}svg text.phase,svg text.level{fill:var(--text)}\n"
    ".c0,.b0{fill:var(--c0)}.c1,.b1{fill:var(--c1)}.c2,.b2{fill:var(--c2)}.c3,.b3{fill:var(--c3)}"
    ".c7{fill:var(--soft)}.c4,.b4{fill:var(--c4)}.c5,.b5{fill:var(--c5)}.c6,.b6{fill:var(--c6)}.l0{stroke:"
    "var(--c0)}"
    ".l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}\n"
    ".nothing{color:var(--soft);margin:24px 0}table{border-collapse:collapse;width:100%;font-size:14px}"
    "th{text-align:left;font-weight:600;color:var(--soft)}th,td{padding:5px 14px 5px 0;vertical-align:top;"
    "border-bottom:1px solid var(--edge)}td:last-child{overflow-wrap:anywhere}tr:last-child "
    "td{border-bottom:0}"
    ".columns{columns:2 420px;column-gap:32px}footer{color:var(--soft);font-size:13px;margin-top:20px}\n"
    "@media print{body{background:#fff}.box,.tile{break-inside:avoid}}\n";

void page_text(struct buf *out, const char *text) {
    struct buf plain = {0};
    text_escape(&plain, text, strlen(text), false);
    for (const char *at = plain.data ? plain.data : ""; *at; at++) {
        switch (*at) {
        case '&': buf_text(out, "&amp;"); break;
        case '<': buf_text(out, "&lt;"); break;
        case '>': buf_text(out, "&gt;"); break;
        case '"': buf_text(out, "&quot;"); break;
        case '\'': buf_text(out, "&#39;"); break;
        default: buf_byte(out, *at);
        }
    }
    out->failed |= plain.failed;
    buf_release(&plain);
}

static void element(struct buf *out, const char *tag, const char *text) {
    buf_printf(out, "<%s>", tag);
    page_text(out, text);
    buf_printf(out, "</%.*s>", (int)strcspn(tag, " "), tag);
}

/* No address is reached from this page: the policy holds even where a browser would try. */
void page_open(struct buf *out, const char *title, const char *state) {
    buf_text(out,
             "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
             "'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    element(out, "title", title);
    buf_printf(out, "\n<style>%s</style></head>\n<body><main><header>", style);
    element(out, "h1", title);
    element(out, "p", state);
    buf_text(out, "</header>\n");
}

void page_close(struct buf *out, const char *made_by) {
    element(out, "footer", made_by);
    buf_text(out, "\n</main></body></html>\n");
}

void page_tiles_open(struct buf *out) { buf_text(out, "<div class=\"tiles\">\n"); }

void page_tile(struct buf *out, const char *name, const char *figure, const char *beside) {
    buf_text(out, "<div class=\"tile\">");
    element(out, "span", name);
    element(out, "b", figure);
    element(out, "i", beside);
    buf_text(out, "</div>\n");
}

void page_tiles_close(struct buf *out) { buf_text(out, "</div>\n"); }

void page_grid_open(struct buf *out) { buf_text(out, "<div class=\"grid\">\n"); }

void page_grid_close(struct buf *out) { buf_text(out, "</div>\n"); }

void page_box_open(struct buf *out, const char *heading, bool wide) {
    buf_printf(out, "<section class=\"box%s\">", wide ? " wide" : "");
    element(out, "h2", heading);
    buf_byte(out, '\n');
}

void page_box_close(struct buf *out) { buf_text(out, "</section>\n"); }

void page_table_open(struct buf *out, const char *const *heads, int count) {
    buf_text(out, "<table><thead><tr>");
    for (int i = 0; i < count; i++) element(out, "th", heads[i]);
    buf_text(out, "</tr></thead><tbody>\n");
}

void page_row(struct buf *out, const char *const *cells, int count) {
    buf_text(out, "<tr>");
    for (int i = 0; i < count; i++) element(out, "td", cells[i]);
    buf_text(out, "</tr>\n");
}

void page_table_close(struct buf *out) { buf_text(out, "</tbody></table>\n"); }
