/* A record is: length u64 | masked CRC-32C of the length | bytes | masked CRC-32C of the bytes. The bytes
 * are a protobuf message, small enough to be laid out by hand:
 *
 *   Event:   1 wall_time double | 2 step varint | 3 file_version text | 5 summary { 1 value* } |
 *            7 session_log { 1 status varint, 1: start }
 *   Value:   1 tag text | 2 simple_value float
 */
#include "format/tfevents.h"

#include <string.h>

#include "base/buf.h"

enum { wire_varint = 0, wire_fixed64 = 1, wire_counted = 2, wire_fixed32 = 5 };

/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), four bits at a time. */
static uint32_t crc32c(const void *bytes, size_t size) {
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const unsigned char *at = bytes;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= at[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* TFRecord stores checksums rotated and shifted, since a checksum of data that holds its own is weak. */
static uint32_t masked_crc(const void *bytes, size_t size) {
    uint32_t crc = crc32c(bytes, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_varint(struct buf *out, uint64_t value) {
    for (; value >= 128; value >>= 7) buf_byte(out, (char)(value | 128));
    buf_byte(out, (char)value);
}

static void put_tag(struct buf *out, unsigned field, unsigned wire) { put_varint(out, field << 3 | wire); }

static void put_counted(struct buf *out, unsigned field, const void *bytes, size_t size) {
    put_tag(out, field, wire_counted);
    put_varint(out, size);
    buf_append(out, bytes, size);
}

static void put_wall_time(struct buf *out, double wall_time) {
    put_tag(out, 1, wire_fixed64);
    buf_append(out, &wall_time, sizeof wall_time);
}

static void put_time(struct buf *out, double wall_time, int64_t step) {
    put_wall_time(out, wall_time);
    put_tag(out, 2, wire_varint);
    put_varint(out, (uint64_t)step);
}

static bool write_record(struct tfevents *events, const struct buf *message, struct error *err) {
    struct buf record = {0};
    uint64_t length = message->size;
    uint32_t crc = masked_crc(&length, sizeof length);
    buf_append(&record, &length, sizeof length);
    buf_append(&record, &crc, sizeof crc);
    buf_append(&record, message->data, message->size);
    crc = masked_crc(message->data, message->size);
    buf_append(&record, &crc, sizeof crc);
    bool ok = message->failed || record.failed
                  ? error_no_memory(err, "tfevents", message->size)
                  : fs_appender_write(&events->file, record.data, record.size, err);
    buf_release(&record);
    return ok;
}

bool tfevents_open(struct tfevents *out, const char *path, double wall_time, struct error *err) {
    static const char version[] = "brain.Event:2";
    struct buf message = {0};
    if (!fs_appender_open(&out->file, path, 0, err)) return false;
    put_wall_time(&message, wall_time);
    put_counted(&message, 3, version, sizeof version - 1);
    bool ok = write_record(out, &message, err);
    buf_release(&message);
    if (!ok) tfevents_close(out);
    return ok;
}

bool tfevents_write(struct tfevents *events, double wall_time, int64_t step,
                    const struct tfevents_scalar *scalars, size_t count, struct error *err) {
    struct buf message = {0}, summary = {0}, value = {0};
    for (size_t i = 0; i < count; i++) {
        float number = (float)scalars[i].value;
        buf_clear(&value);
        put_counted(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_tag(&value, 2, wire_fixed32);
        buf_append(&value, &number, sizeof number);
        if (value.failed) summary.failed = true;
        put_counted(&summary, 1, value.data, value.size);
    }
    put_time(&message, wall_time, step);
    put_counted(&message, 5, summary.data, summary.size);
    if (summary.failed) message.failed = true;
    bool ok = write_record(events, &message, err);
    buf_release(&message);
    buf_release(&summary);
    buf_release(&value);
    return ok;
}

bool tfevents_restart(struct tfevents *events, double wall_time, int64_t step, struct error *err) {
    static const char start[] = {1 << 3 | wire_varint, 1};
    struct buf message = {0};
    put_time(&message, wall_time, step);
    put_counted(&message, 7, start, sizeof start);
    bool ok = write_record(events, &message, err);
    buf_release(&message);
    return ok;
}

void tfevents_close(struct tfevents *events) { fs_appender_close(&events->file); }
