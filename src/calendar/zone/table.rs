//! The time zones of the IANA database, written by `make zones`: those with the same clocks together.

use super::{Zone, always, changing, on};

/// The release of the database.
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(super) const RELEASE: &str = "2026f";

/// The second from which on the table is right: earlier changes of clocks are left out.
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(super) const FIRST: u64 = 1735689600;

/// Names, and what the clocks show there.
#[rustfmt::skip]
pub(super) static ZONES: [(&str, Zone); 68] = [
    ("\
         Africa/Abidjan Africa/Accra Africa/Bamako Africa/Banjul Africa/Bissau Africa/Conakry \
         Africa/Dakar Africa/Freetown Africa/Lome Africa/Monrovia Africa/Nouakchott \
         Africa/Ouagadougou Africa/Sao_Tome Africa/Timbuktu America/Danmarkshavn \
         Atlantic/Reykjavik Atlantic/St_Helena Etc/GMT Etc/GMT+0 Etc/GMT-0 Etc/GMT0 Etc/Greenwich \
         Etc/UCT Etc/UTC Etc/Universal Etc/Zulu GMT GMT+0 GMT-0 GMT0 Greenwich Iceland UCT UTC \
         Universal Zulu",
     always(0)),
    ("\
         Africa/Addis_Ababa Africa/Asmara Africa/Asmera Africa/Dar_es_Salaam Africa/Djibouti \
         Africa/Kampala Africa/Mogadishu Africa/Nairobi Antarctica/Syowa Asia/Aden Asia/Amman \
         Asia/Baghdad Asia/Bahrain Asia/Damascus Asia/Istanbul Asia/Kuwait Asia/Qatar Asia/Riyadh \
         Etc/GMT-3 Europe/Istanbul Europe/Kirov Europe/Minsk Europe/Moscow Europe/Simferopol \
         Europe/Volgograd Indian/Antananarivo Indian/Comoro Indian/Mayotte Turkey W-SU",
     always(10800)),
    ("\
         Africa/Algiers Africa/Bangui Africa/Brazzaville Africa/Douala Africa/Kinshasa \
         Africa/Lagos Africa/Libreville Africa/Luanda Africa/Malabo Africa/Ndjamena Africa/Niamey \
         Africa/Porto-Novo Africa/Tunis Etc/GMT-1",
     always(3600)),
    ("\
         Africa/Blantyre Africa/Bujumbura Africa/Gaborone Africa/Harare Africa/Johannesburg \
         Africa/Juba Africa/Khartoum Africa/Kigali Africa/Lubumbashi Africa/Lusaka Africa/Maputo \
         Africa/Maseru Africa/Mbabane Africa/Tripoli Africa/Windhoek Etc/GMT-2 Europe/Kaliningrad \
         Libya",
     always(7200)),
    ("\
         Africa/Cairo Egypt",
     changing(7200, 10800, on(4, 5, 5, 0), on(10, 5, 4, 86400))),
    ("\
         Africa/Casablanca Africa/El_Aaiun",
     always(0).after(&AFRICA_CASABLANCA)),
    ("\
         Africa/Ceuta Arctic/Longyearbyen Atlantic/Jan_Mayen CET Europe/Amsterdam Europe/Andorra \
         Europe/Belgrade Europe/Berlin Europe/Bratislava Europe/Brussels Europe/Budapest \
         Europe/Busingen Europe/Copenhagen Europe/Gibraltar Europe/Ljubljana Europe/Luxembourg \
         Europe/Madrid Europe/Malta Europe/Monaco Europe/Oslo Europe/Paris Europe/Podgorica \
         Europe/Prague Europe/Rome Europe/San_Marino Europe/Sarajevo Europe/Skopje \
         Europe/Stockholm Europe/Tirane Europe/Vaduz Europe/Vatican Europe/Vienna Europe/Warsaw \
         Europe/Zagreb Europe/Zurich MET Poland",
     changing(3600, 7200, on(3, 5, 0, 7200), on(10, 5, 0, 10800))),
    ("\
         America/Adak America/Atka US/Aleutian",
     changing(-36000, -32400, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Anchorage America/Juneau America/Metlakatla America/Nome America/Sitka \
         America/Yakutat US/Alaska",
     changing(-32400, -28800, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Anguilla America/Antigua America/Aruba America/Barbados America/Blanc-Sablon \
         America/Boa_Vista America/Campo_Grande America/Caracas America/Cuiaba America/Curacao \
         America/Dominica America/Grenada America/Guadeloupe America/Guyana America/Kralendijk \
         America/La_Paz America/Lower_Princes America/Manaus America/Marigot America/Martinique \
         America/Montserrat America/Port_of_Spain America/Porto_Velho America/Puerto_Rico \
         America/Santo_Domingo America/St_Barthelemy America/St_Kitts America/St_Lucia \
         America/St_Thomas America/St_Vincent America/Tortola America/Virgin Brazil/West \
         Etc/GMT+4",
     always(-14400)),
    ("\
         America/Araguaina America/Argentina/Buenos_Aires America/Argentina/Catamarca \
         America/Argentina/ComodRivadavia America/Argentina/Cordoba America/Argentina/Jujuy \
         America/Argentina/La_Rioja America/Argentina/Mendoza America/Argentina/Rio_Gallegos \
         America/Argentina/Salta America/Argentina/San_Juan America/Argentina/San_Luis \
         America/Argentina/Tucuman America/Argentina/Ushuaia America/Asuncion America/Bahia \
         America/Belem America/Buenos_Aires America/Catamarca America/Cayenne America/Cordoba \
         America/Coyhaique America/Fortaleza America/Jujuy America/Maceio America/Mendoza \
         America/Montevideo America/Paramaribo America/Punta_Arenas America/Recife \
         America/Rosario America/Santarem America/Sao_Paulo Antarctica/Palmer Antarctica/Rothera \
         Atlantic/Stanley Brazil/East Etc/GMT+3",
     always(-10800)),
    ("\
         America/Atikokan America/Bogota America/Cancun America/Cayman America/Coral_Harbour \
         America/Eirunepe America/Guayaquil America/Jamaica America/Lima America/Panama \
         America/Porto_Acre America/Rio_Branco Brazil/Acre EST Etc/GMT+5 Jamaica",
     always(-18000)),
    ("\
         America/Bahia_Banderas America/Belize America/Chihuahua America/Costa_Rica \
         America/El_Salvador America/Guatemala America/Managua America/Merida America/Mexico_City \
         America/Monterrey America/Regina America/Swift_Current America/Tegucigalpa \
         Canada/Saskatchewan Etc/GMT+6 Mexico/General Pacific/Galapagos",
     always(-21600)),
    ("\
         America/Boise America/Cambridge_Bay America/Ciudad_Juarez America/Denver \
         America/Shiprock MST7MDT Navajo US/Mountain",
     changing(-25200, -21600, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Chicago America/Indiana/Knox America/Indiana/Tell_City America/Knox_IN \
         America/Matamoros America/Menominee America/North_Dakota/Beulah \
         America/North_Dakota/Center America/North_Dakota/New_Salem America/Ojinaga \
         America/Rankin_Inlet America/Resolute CST6CDT US/Central US/Indiana-Starke",
     changing(-21600, -18000, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Creston America/Dawson America/Dawson_Creek America/Fort_Nelson \
         America/Hermosillo America/Mazatlan America/Phoenix America/Whitehorse Canada/Yukon \
         Etc/GMT+7 MST Mexico/BajaSur US/Arizona",
     always(-25200)),
    ("\
         America/Detroit America/Fort_Wayne America/Grand_Turk America/Indiana/Indianapolis \
         America/Indiana/Marengo America/Indiana/Petersburg America/Indiana/Vevay \
         America/Indiana/Vincennes America/Indiana/Winamac America/Indianapolis America/Iqaluit \
         America/Kentucky/Louisville America/Kentucky/Monticello America/Louisville \
         America/Montreal America/Nassau America/New_York America/Nipigon America/Pangnirtung \
         America/Port-au-Prince America/Thunder_Bay America/Toronto Canada/Eastern EST5EDT \
         US/East-Indiana US/Eastern US/Michigan",
     changing(-18000, -14400, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Edmonton America/Inuvik America/Yellowknife Canada/Mountain",
     always(-21600).after(&AMERICA_EDMONTON)),
    ("\
         America/Ensenada America/Los_Angeles America/Santa_Isabel America/Tijuana \
         Mexico/BajaNorte PST8PDT US/Pacific",
     changing(-28800, -25200, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Glace_Bay America/Goose_Bay America/Halifax America/Moncton America/Thule \
         Atlantic/Bermuda Canada/Atlantic",
     changing(-14400, -10800, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Godthab America/Nuuk America/Scoresbysund",
     changing(-7200, -3600, on(3, 5, 0, -3600), on(10, 5, 0, 0))),
    ("\
         America/Havana Cuba",
     changing(-18000, -14400, on(3, 2, 0, 0), on(11, 1, 0, 3600)).after(&AMERICA_HAVANA)),
    ("\
         America/Miquelon",
     changing(-10800, -7200, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Noronha Atlantic/South_Georgia Brazil/DeNoronha Etc/GMT+2",
     always(-7200)),
    ("\
         America/Rainy_River America/Winnipeg Canada/Central",
     always(-18000).after(&AMERICA_RAINY_RIVER)),
    ("\
         America/Santiago Chile/Continental",
     changing(-14400, -10800, on(9, 1, 6, 86400), on(4, 1, 6, 86400))),
    ("\
         America/St_Johns Canada/Newfoundland",
     changing(-12600, -9000, on(3, 2, 0, 7200), on(11, 1, 0, 7200))),
    ("\
         America/Vancouver Canada/Pacific",
     always(-25200).after(&AMERICA_VANCOUVER)),
    ("\
         Antarctica/Casey Asia/Brunei Asia/Choibalsan Asia/Chongqing Asia/Chungking Asia/Harbin \
         Asia/Hong_Kong Asia/Irkutsk Asia/Kuala_Lumpur Asia/Kuching Asia/Macao Asia/Macau \
         Asia/Makassar Asia/Manila Asia/Shanghai Asia/Singapore Asia/Taipei Asia/Ujung_Pandang \
         Asia/Ulaanbaatar Asia/Ulan_Bator Australia/Perth Australia/West Etc/GMT-8 Hongkong PRC \
         ROC Singapore",
     always(28800)),
    ("\
         Antarctica/Davis Asia/Bangkok Asia/Barnaul Asia/Ho_Chi_Minh Asia/Hovd Asia/Jakarta \
         Asia/Krasnoyarsk Asia/Novokuznetsk Asia/Novosibirsk Asia/Phnom_Penh Asia/Pontianak \
         Asia/Saigon Asia/Tomsk Asia/Vientiane Etc/GMT-7 Indian/Christmas",
     always(25200)),
    ("\
         Antarctica/DumontDUrville Asia/Ust-Nera Asia/Vladivostok Australia/Brisbane \
         Australia/Lindeman Australia/Queensland Etc/GMT-10 Pacific/Chuuk Pacific/Guam \
         Pacific/Port_Moresby Pacific/Saipan Pacific/Truk Pacific/Yap",
     always(36000)),
    ("\
         Antarctica/Macquarie Australia/ACT Australia/Canberra Australia/Currie Australia/Hobart \
         Australia/Melbourne Australia/NSW Australia/Sydney Australia/Tasmania Australia/Victoria",
     changing(36000, 39600, on(10, 1, 0, 7200), on(4, 1, 0, 10800))),
    ("\
         Antarctica/Mawson Antarctica/Vostok Asia/Almaty Asia/Aqtau Asia/Aqtobe Asia/Ashgabat \
         Asia/Ashkhabad Asia/Atyrau Asia/Dushanbe Asia/Karachi Asia/Oral Asia/Qostanay \
         Asia/Qyzylorda Asia/Samarkand Asia/Tashkent Asia/Yekaterinburg Etc/GMT-5 \
         Indian/Kerguelen Indian/Maldives",
     always(18000)),
    ("\
         Antarctica/McMurdo Antarctica/South_Pole NZ Pacific/Auckland",
     changing(43200, 46800, on(9, 5, 0, 7200), on(4, 1, 0, 10800))),
    ("\
         Antarctica/Troll",
     changing(0, 7200, on(3, 5, 0, 3600), on(10, 5, 0, 10800))),
    ("\
         Asia/Anadyr Asia/Kamchatka Etc/GMT-12 Kwajalein Pacific/Fiji Pacific/Funafuti \
         Pacific/Kwajalein Pacific/Majuro Pacific/Nauru Pacific/Tarawa Pacific/Wake \
         Pacific/Wallis",
     always(43200)),
    ("\
         Asia/Baku Asia/Dubai Asia/Muscat Asia/Tbilisi Asia/Yerevan Etc/GMT-4 Europe/Astrakhan \
         Europe/Samara Europe/Saratov Europe/Ulyanovsk Indian/Mahe Indian/Mauritius \
         Indian/Reunion",
     always(14400)),
    ("\
         Asia/Beirut",
     changing(7200, 10800, on(3, 5, 0, 0), on(10, 5, 0, 0))),
    ("\
         Asia/Bishkek Asia/Dacca Asia/Dhaka Asia/Kashgar Asia/Omsk Asia/Thimbu Asia/Thimphu \
         Asia/Urumqi Etc/GMT-6 Indian/Chagos",
     always(21600)),
    ("\
         Asia/Calcutta Asia/Colombo Asia/Kolkata",
     always(19800)),
    ("\
         Asia/Chita Asia/Dili Asia/Jayapura Asia/Khandyga Asia/Pyongyang Asia/Seoul Asia/Tokyo \
         Asia/Yakutsk Etc/GMT-9 Japan Pacific/Palau ROK",
     always(32400)),
    ("\
         Asia/Famagusta Asia/Nicosia EET Europe/Athens Europe/Bucharest Europe/Chisinau \
         Europe/Helsinki Europe/Kiev Europe/Kyiv Europe/Mariehamn Europe/Nicosia Europe/Riga \
         Europe/Sofia Europe/Tallinn Europe/Tiraspol Europe/Uzhgorod Europe/Vilnius \
         Europe/Zaporozhye",
     changing(7200, 10800, on(3, 5, 0, 10800), on(10, 5, 0, 14400))),
    ("\
         Asia/Gaza Asia/Hebron",
     changing(7200, 10800, on(3, 4, 4, 180000), on(10, 4, 4, 180000)).after(&ASIA_GAZA)),
    ("\
         Asia/Jerusalem Asia/Tel_Aviv Israel",
     changing(7200, 10800, on(3, 4, 4, 93600), on(10, 5, 0, 7200))),
    ("\
         Asia/Kabul",
     always(16200)),
    ("\
         Asia/Kathmandu Asia/Katmandu",
     always(20700)),
    ("\
         Asia/Magadan Asia/Sakhalin Asia/Srednekolymsk Etc/GMT-11 Pacific/Bougainville \
         Pacific/Efate Pacific/Guadalcanal Pacific/Kosrae Pacific/Noumea Pacific/Pohnpei \
         Pacific/Ponape",
     always(39600)),
    ("\
         Asia/Rangoon Asia/Yangon Indian/Cocos",
     always(23400)),
    ("\
         Asia/Tehran Iran",
     always(12600)),
    ("\
         Atlantic/Azores",
     changing(-3600, 0, on(3, 5, 0, 0), on(10, 5, 0, 3600))),
    ("\
         Atlantic/Canary Atlantic/Faeroe Atlantic/Faroe Atlantic/Madeira Europe/Belfast \
         Europe/Guernsey Europe/Isle_of_Man Europe/Jersey Europe/Lisbon Europe/London GB GB-Eire \
         Portugal WET",
     changing(0, 3600, on(3, 5, 0, 3600), on(10, 5, 0, 7200))),
    ("\
         Atlantic/Cape_Verde Etc/GMT+1",
     always(-3600)),
    ("\
         Australia/Adelaide Australia/Broken_Hill Australia/South Australia/Yancowinna",
     changing(34200, 37800, on(10, 1, 0, 7200), on(4, 1, 0, 10800))),
    ("\
         Australia/Darwin Australia/North",
     always(34200)),
    ("\
         Australia/Eucla",
     always(31500)),
    ("\
         Australia/LHI Australia/Lord_Howe",
     changing(37800, 39600, on(10, 1, 0, 7200), on(4, 1, 0, 7200))),
    ("\
         Chile/EasterIsland Pacific/Easter",
     changing(-21600, -18000, on(9, 1, 6, 79200), on(4, 1, 6, 79200))),
    ("\
         Eire Europe/Dublin",
     changing(3600, 0, on(10, 5, 0, 7200), on(3, 5, 0, 3600))),
    ("\
         Etc/GMT+10 HST Pacific/Honolulu Pacific/Johnston Pacific/Rarotonga Pacific/Tahiti \
         US/Hawaii",
     always(-36000)),
    ("\
         Etc/GMT+11 Pacific/Midway Pacific/Niue Pacific/Pago_Pago Pacific/Samoa US/Samoa",
     always(-39600)),
    ("\
         Etc/GMT+12",
     always(-43200)),
    ("\
         Etc/GMT+8 Pacific/Pitcairn",
     always(-28800)),
    ("\
         Etc/GMT+9 Pacific/Gambier",
     always(-32400)),
    ("\
         Etc/GMT-13 Pacific/Apia Pacific/Enderbury Pacific/Fakaofo Pacific/Kanton \
         Pacific/Tongatapu",
     always(46800)),
    ("\
         Etc/GMT-14 Pacific/Kiritimati",
     always(50400)),
    ("\
         NZ-CHAT Pacific/Chatham",
     changing(45900, 49500, on(9, 5, 0, 9900), on(4, 1, 0, 13500))),
    ("\
         Pacific/Marquesas",
     always(-34200)),
    ("\
         Pacific/Norfolk",
     changing(39600, 43200, on(10, 1, 0, 7200), on(4, 1, 0, 10800))),
];

#[rustfmt::skip]
static AFRICA_CASABLANCA: [(u32, i32); 6] = [
    (1735689600, 3600), (1740276000, 0), (1743904800, 3600), (1771120800, 0), (1774144800, 3600),
    (1789866000, 0),
];

#[rustfmt::skip]
static AMERICA_EDMONTON: [(u32, i32); 4] = [
    (1735689600, -25200), (1741510800, -21600), (1762070400, -25200), (1772960400, -21600),
];

#[rustfmt::skip]
static AMERICA_HAVANA: [(u32, i32); 5] = [
    (1735689600, -18000), (1741496400, -14400), (1762059600, -18000), (1772946000, -14400),
    (1825563600, -18000),
];

#[rustfmt::skip]
static AMERICA_RAINY_RIVER: [(u32, i32); 4] = [
    (1735689600, -21600), (1741507200, -18000), (1762066800, -21600), (1772956800, -18000),
];

#[rustfmt::skip]
static AMERICA_VANCOUVER: [(u32, i32); 4] = [
    (1735689600, -28800), (1741514400, -25200), (1762074000, -28800), (1772964000, -25200),
];

#[rustfmt::skip]
static ASIA_GAZA: [(u32, i32); 185] = [
    (1735689600, 7200), (1744416000, 10800), (1761346800, 7200), (1774656000, 10800),
    (1792796400, 7200), (1806105600, 10800), (1824850800, 7200), (1837555200, 10800),
    (1856300400, 7200), (1869004800, 10800), (1887750000, 7200), (1901059200, 10800),
    (1919199600, 7200), (1932508800, 10800), (1950649200, 7200), (1963958400, 10800),
    (1982703600, 7200), (1995408000, 10800), (2014153200, 7200), (2026857600, 10800),
    (2045602800, 7200), (2058307200, 10800), (2077052400, 7200), (2090361600, 10800),
    (2107897200, 7200), (2121811200, 10800), (2138742000, 7200), (2153260800, 10800),
    (2168982000, 7200), (2184710400, 10800), (2199826800, 7200), (2216160000, 10800),
    (2230066800, 7200), (2234304000, 10800), (2234905200, 7200), (2248214400, 10800),
    (2260911600, 7200), (2264544000, 10800), (2266354800, 7200), (2279664000, 10800),
    (2291756400, 7200), (2295388800, 10800), (2297804400, 7200), (2311113600, 10800),
    (2321996400, 7200), (2326233600, 10800), (2329254000, 7200), (2342563200, 10800),
    (2352841200, 7200), (2356473600, 10800), (2361308400, 7200), (2374012800, 10800),
    (2383686000, 7200), (2387318400, 10800), (2392758000, 7200), (2405462400, 10800),
    (2413926000, 7200), (2418163200, 10800), (2424207600, 7200), (2437516800, 10800),
    (2444770800, 7200), (2448403200, 10800), (2455657200, 7200), (2468966400, 10800),
    (2475010800, 7200), (2479248000, 10800), (2487106800, 7200), (2500416000, 10800),
    (2505855600, 7200), (2509488000, 10800), (2519161200, 7200), (2531865600, 10800),
    (2536700400, 7200), (2540332800, 10800), (2550610800, 7200), (2563315200, 10800),
    (2566940400, 7200), (2571177600, 10800), (2582060400, 7200), (2595369600, 10800),
    (2597785200, 7200), (2601417600, 10800), (2613510000, 7200), (2626819200, 10800),
    (2628025200, 7200), (2632262400, 10800), (2644959600, 7200), (2658268800, 10800),
    (2658870000, 7200), (2663107200, 10800), (2676409200, 7200), (2693347200, 10800),
    (2708463600, 7200), (2724192000, 10800), (2739913200, 7200), (2754432000, 10800),
    (2771362800, 7200), (2785276800, 10800), (2802812400, 7200), (2816121600, 10800),
    (2834262000, 7200), (2847571200, 10800), (2866316400, 7200), (2879020800, 10800),
    (2897766000, 7200), (2910470400, 10800), (2929215600, 7200), (2941920000, 10800),
    (2960665200, 7200), (2973974400, 10800), (2992114800, 7200), (3005424000, 10800),
    (3023564400, 7200), (3036873600, 10800), (3055618800, 7200), (3068323200, 10800),
    (3087068400, 7200), (3099772800, 10800), (3117913200, 7200), (3131827200, 10800),
    (3148758000, 7200), (3163276800, 10800), (3179602800, 7200), (3194726400, 10800),
    (3209842800, 7200), (3226176000, 10800), (3240687600, 7200), (3244320000, 10800),
    (3244921200, 7200), (3257625600, 10800), (3271532400, 7200), (3275164800, 10800),
    (3276370800, 7200), (3289075200, 10800), (3301772400, 7200), (3306009600, 10800),
    (3307820400, 7200), (3321129600, 10800), (3332617200, 7200), (3336249600, 10800),
    (3339270000, 7200), (3352579200, 10800), (3362857200, 7200), (3367094400, 10800),
    (3370719600, 7200), (3384028800, 10800), (3393702000, 7200), (3397939200, 10800),
    (3402774000, 7200), (3415478400, 10800), (3424546800, 7200), (3428179200, 10800),
    (3434223600, 7200), (3446928000, 10800), (3454786800, 7200), (3459024000, 10800),
    (3465673200, 7200), (3478982400, 10800), (3485631600, 7200), (3489264000, 10800),
    (3497122800, 7200), (3510432000, 10800), (3516476400, 7200), (3520108800, 10800),
    (3528572400, 7200), (3541881600, 10800), (3546716400, 7200), (3550953600, 10800),
    (3560022000, 7200), (3573331200, 10800), (3577561200, 7200), (3581193600, 10800),
    (3592076400, 7200), (3604780800, 10800), (3607801200, 7200), (3612038400, 10800),
    (3623526000, 7200), (3636230400, 10800), (3638646000, 7200), (3642883200, 10800),
    (3654975600, 7200), (3668284800, 10800), (3669490800, 7200), (3673123200, 10800),
    (3686425200, 7200),
];
