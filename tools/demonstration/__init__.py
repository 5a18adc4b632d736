"""What `tools/demo` runs.

    options   the command line
    machine   what the machine must have; free ports
    ending    Ctrl-C and SIGTERM, once and for all
    narrator  what is said on the way
    overlay   the NVEs, the VMs and the NVA, as real as they get
    main_job  traffic on, there and back, counted and compared
    account   the verdict, the tables and the JSON document
    picture   arrivals.svg
    control   --keep, and driving a kept demonstration from elsewhere (--move, --stop)
"""
