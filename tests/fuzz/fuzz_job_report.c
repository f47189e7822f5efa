/* events.jsonl of a run that a stranger hands on: the report of it is drawn, without a number that is none
 * and without markup of theirs, or refused. */
#include <string.h>

#include <hone/hone.h>

#include "fuzz_folder.h"

static void check_page(void) {
    char path[160];
    struct buf page = {0};
    struct error err;
    snprintf(path, sizeof path, "%s/report.html", fuzz_folder);
    require(fs_read(path, 0, &page, &err));
    require(strstr(page.data, "</html>") && !strstr(page.data, "\"nan") && !strstr(page.data, "\"-nan"));
    require(!strstr(page.data, "\"inf") && !strstr(page.data, "\"-inf") && !strstr(page.data, "<fuzz"));
    buf_release(&page);
    remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct hone_error err = {0};
    struct hone_job *job = NULL;
    make_fuzz_folder();
    put_fuzz_file("events.jsonl", data, size);
    require(hone_job_open(&job, "report", &err) && hone_job_set(job, "run", fuzz_folder, &err));
    if (hone_job_run(job, &err))
        check_page();
    else
        require(err.code == HONE_INPUT && err.what[0]);
    hone_job_close(&job);
    return 0;
}
