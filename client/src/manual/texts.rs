//! What the manual page says beside the definition of the command line, as roff.

/// Begins the page, up to the options.
pub(super) const HEAD: &str = r#".\" Made from client/src/manual and the command line's definition, not to be edited.
.\" To make it anew: BLESS=1 cargo test -p memchargectl manual
.TH MEMCHARGECTL 1 "" memcharge "User commands"
.SH NAME
memchargectl \- shows and changes the mounts of memcharged
.SH SYNOPSIS
.B memchargectl
.RI [ OPTIONS ]
.I VERB
.RI [ ARGUMENTS ]
.SH DESCRIPTION
.B memchargectl
asks
.BR memcharged (8)
over the system bus, and prints what it answers.
A
.I mount
is a directory for shared memory; its
.I target
is the cgroup that pays for what is in it, whoever writes it.
.PP
Everybody may look.
What changes something needs root, or polkit's consent.
On a terminal, tables are made to fit, states are coloured, and output that is too long for the screen goes through a
pager.
Into a pipe or a file everything goes as it is.
"#;

/// What is to be said of verbs beside the one line of their help.
pub(super) const MORE: &[(&str, &str)] = &[
    (
        "status",
        r#"
For each mount: where it is, who pays, its state and the reason for it, what the files hold
.RI ( Used ),
what others could still get
.RI ( Headroom ),
what is charged in all
.RI ( Charged ),
what earlier targets still pay for
.RI ( Earlier ),
how often somebody was refused or killed, and the last arbitration.
"#,
    ),
    (
        "show",
        r#"
One line for each, as
.B systemctl show
has them.
The names are those of
.BR org.memcharge.Memcharge1 (5).
"#,
    ),
    (
        "mount",
        r#"
It is there until it is unmounted or the machine is shut down; with
.B \-\-persist
also after that.
Prints the mount's object on the bus.
The keys of
.B \-\-set
are those of
.BR memcharge.toml (5).
"#,
    ),
    (
        "unmount",
        r#"
The refusal names the processes.
"#,
    ),
    (
        "recover",
        r#"
A mount whose store has ended for good is failed, and keeps its data until it is recovered or unmounted.
"#,
    ),
    (
        "cat-config",
        r#"
A comment at each line names the file that it comes from, or says that it is the built\-in default.
This is what a reload would put in force; what is in force now is shown by
.BR show .
"#,
    ),
    (
        "check",
        r#"
One line for each error, with file and line; exit status 1 if there is any.
Where memcharged does not run,
.B memcharged \-\-check\-config
is run instead.
"#,
    ),
    (
        "reload",
        r#"
Returns when that is done.
If the configuration has an error, everything stays as it is, and every error is told.
What changes at once, and what waits, is in
.BR memcharge.toml (5).
"#,
    ),
    (
        "set",
        r#"
The policy is in force when this returns, and stays, whatever the mount's file says, until
.B revert
or the end of the mount.
The keys are those of
.BR memcharge.toml (5).
"#,
    ),
    (
        "retarget",
        r#"
Returns when the new target pays.
Clients of the mount wait meanwhile, and lose nothing.
With
.B \-\-mode future\-only
what the files hold stays charged to the old target until it is freed;
.B status
shows both.
Without, a mount with anything in its files is refused.
The mount's file is not changed: change it too, or the next boot has the old target.
"#,
    ),
    (
        "history",
        r#"
Newest last, with the first digits of the id that
.B explain
takes.
"#,
    ),
    (
        "explain",
        r#"
Who asked for what, which limit was in the way, what was tried, what came of it, and what plain tmpfs would have done.
"#,
    ),
    (
        "monitor",
        r#"
Arbitrations, mounts that come and go, changes of state, and the memory events of targets.
Nothing is shortened or paged.
It ends with status 3 when memcharged goes away.
"#,
    ),
];

/// Ends the page.
pub(super) const TAIL: &str = r#".SH "EXIT STATUS"
.TP
.B 0
Done.
.TP
.B 1
Failed, or refused by memcharged; for
.BR check :
the configuration has errors.
.TP
.B 2
The command line is wrong.
.TP
.B 3
memcharged, or the system bus, cannot be reached.
.TP
.B 4
The caller may not do this.
.TP
.B 5
There is no such mount.
.SH ENVIRONMENT
.TP
.B SYSTEMD_PAGER\fR, \fBPAGER
The pager; the first that is set counts, else
.BR less (1)
and
.BR more (1)
are tried.
With an empty value, or
.BR cat ,
nothing is paged.
.TP
.B SYSTEMD_LESS\fR, \fBLESS
Options for
.BR less ,
.B FRSXMK
where neither is set.
.B LESSSECURE=1
is always set for the pager.
.TP
.B COLUMNS\fR, \fBLINES
How large the terminal is, in place of what it says itself.
.TP
.B NO_COLOR
If it is set and not empty, nothing is coloured.
.TP
.B TERM
If it is
.BR dumb ,
nothing is coloured or paged.
.TP
.B DBUS_SYSTEM_BUS_ADDRESS
The bus to ask, in place of the system bus.
.TP
.B COMPLETE
Set by the completions of shells only.
.SH FILES
.TP
.I /etc/memcharge/memcharged.toml\fR, \fI/etc/memcharge/mounts.d/*.toml
The configuration; see
.BR memcharge.toml (5).
.TP
.I /usr/share/doc/memcharge/json.md
What
.B \-\-json
prints, verb by verb.
.TP
.I /usr/share/doc/memcharge/memchargectl.schema.json
The same as JSON Schema.
.TP
.I /usr/share/bash\-completion/completions/memchargectl
.TQ
.I /usr/share/zsh/vendor\-completions/_memchargectl
.TQ
.I /usr/share/fish/vendor_completions.d/memchargectl.fish
Completion of verbs, options, and the names of mounts and their targets.
.SH EXAMPLES
A mount for which
.I models.slice
pays, 2 GiB at most:
.PP
.in +4n
.EX
# memchargectl mount models \-\-where /run/shared/models \e
      \-\-target models.slice \-\-size 2G
.EE
.in
.PP
Why did somebody get ENOSPC?
.PP
.in +4n
.EX
$ memchargectl history models \-\-since 1h
$ memchargectl explain 80c7c195
.EE
.in
.PP
Let the writers win over the largest process of the target, until
.BR "memchargectl revert models" :
.PP
.in +4n
.EX
# memchargectl set models on\-full=kill kill.victim=largest
.EE
.in
.PP
The mounts that are not active:
.PP
.in +4n
.EX
$ memchargectl list \-\-json | jq \-r '.[] | select(.state != "active") | .name'
.EE
.in
.SH "SEE ALSO"
.BR memcharged (8),
.BR memcharge.toml (5),
.BR org.memcharge.Memcharge1 (5),
.BR systemctl (1),
.BR systemd.resource\-control (5)
"#;
