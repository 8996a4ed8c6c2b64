/* alarm list, defrag: etcdserverpb.Maintenance. */
#include <inttypes.h>

#include "cli/call.h"
#include "cli/kv_print.h"
#include "cli/run.h"

static const struct hw_ctl_method alarm_method = {.path = "/etcdserverpb.Maintenance/Alarm",
                                                  .response = &etcdserverpb__alarm_response__descriptor};
static const struct hw_ctl_method defragment_method = {.path = "/etcdserverpb.Maintenance/Defragment",
                                                       .response = &etcdserverpb__defragment_response__descriptor};

static const char *alarm_name(Etcdserverpb__AlarmType type)
{
    return type == ETCDSERVERPB__ALARM_TYPE__NOSPACE   ? "NOSPACE"
           : type == ETCDSERVERPB__ALARM_TYPE__CORRUPT ? "CORRUPT"
                                                       : "NONE";
}

HW_CTL_RUN(alarm_list)
{
    Etcdserverpb__AlarmRequest q = ETCDSERVERPB__ALARM_REQUEST__INIT;
    const Etcdserverpb__AlarmResponse *r;
    ProtobufCMessage *answer;
    json_t *alarms;
    int rc = hw_ctl_unary(ctl, &alarm_method, &q.base, &answer, e);
    (void)args;
    if (rc != 0) {
        return rc;
    }
    r = (Etcdserverpb__AlarmResponse *)answer;
    alarms = json_array();
    for (size_t i = 0; i < r->n_alarms; i++) {
        json_array_append_new(alarms, json_pack("{s:o, s:s}", "memberID", hw_ctl_json_hex(r->alarms[i]->memberid),
                                                "alarm", alarm_name(r->alarms[i]->alarm)));
        if (!hw_ctl_is_json(ctl)) {
            fprintf(ctl->out, "%s on node %016" PRIx64 "\n", alarm_name(r->alarms[i]->alarm), r->alarms[i]->memberid);
        }
    }
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, json_pack("{s:o, s:O}", "header", hw_ctl_json_header(r->header), "alarms", alarms),
                               e);
    } else if (r->n_alarms == 0) {
        hw_ctl_note(ctl, "alarm: none");
    }
    json_decref(alarms);
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

HW_CTL_RUN(defrag)
{
    Etcdserverpb__DefragmentRequest q = ETCDSERVERPB__DEFRAGMENT_REQUEST__INIT;
    ProtobufCMessage *answer;
    json_t *begun = json_array();
    int rc = 0;
    (void)args;
    for (unsigned i = 0; i < ctl->endpoint_count && rc == 0; i++) {
        rc = hw_ctl_unary_at(ctl, i, &defragment_method, &q.base, &answer, e);
        if (rc != 0) {
            hw_error_wrap(e, "%s", ctl->endpoints[i].address);
            break;
        }
        protobuf_c_message_free_unpacked(answer, NULL);
        json_array_append_new(begun, hw_ctl_json_text(ctl->endpoints[i].address));
        if (!hw_ctl_is_json(ctl)) {
            fprintf(ctl->out, "%s cleans up in the background\n", ctl->endpoints[i].address);
        }
    }
    if (rc == 0 && hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, json_pack("{s:O}", "endpoints", begun), e);
    }
    json_decref(begun);
    return rc;
}
